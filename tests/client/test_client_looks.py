"""A start that cannot succeed: the healthy owner goes on writing, the error names the remedy, and nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from client_pairs import ALICE, CONFIG, people
from cryptostore import (
    AccessTokenRejected,
    Account,
    Changes,
    ConfigurationError,
    CryptoStoreError,
    HomeserverUnavailable,
    StoreClosed,
    Value,
    WrongPickleKey,
    open_backend,
)
from cryptostore.nio import ProductionMatrixClient
from cryptostore.nio.client.anchor import event_type
from cryptostore.nio.client.threads import _MOST
from cryptostore_contract.samples import KEY
from small_homeserver import HangUp, Request, SmallHomeserver, small_homeserver

USER = "@bot:small"
DEVICE = "BOT"
BOT = Account(USER, DEVICE)
OTHER = "OTHER"

#: For a homeserver that does not answer, where waiting for it would show nothing.
SHORT = 0.5

Start = Callable[[ProductionMatrixClient], Any]


def client_at(server_url: str, url: str, device_id: str | None = DEVICE, **options: Any) -> ProductionMatrixClient:
    given = {"pickle_key": KEY, "config": CONFIG, "user": USER, **options}
    return ProductionMatrixClient(server_url, device_id=device_id, store=url, **given)


@asynccontextmanager
async def healthy(url: str) -> AsyncIterator[tuple[SmallHomeserver, ProductionMatrixClient]]:
    """A bot that is logged in and has uploaded its keys. At the end it still writes, and owns its account."""
    async with small_homeserver() as server:
        bot = client_at(server.url, url)
        await bot.login_or_restore("password")
        await bot.keys_upload()
        before = owners(url)
        yield server, bot
        if bot.store is None:
            return
        await bot.sync()
        bot.production_store.storage.write(Changes([Value("test", "written", b"by the owner")]))
        await bot.flush()
        assert owners(url) == before
        await bot.close()


def owners(url: str) -> dict[Account, int]:
    """Every account in the database with its epoch."""
    with open_backend(url) as backend:
        return {account: ownership.epoch for account, ownership in backend.accounts().items()}


def with_password(password: str | None) -> Start:
    return lambda client: client.login_or_restore(password)


def with_token(token: str) -> Start:
    def start(client: ProductionMatrixClient) -> Any:
        client.access_token = token
        return client.login_or_restore()

    return start


def with_restored(token: str, device_id: str = DEVICE) -> Start:
    async def start(client: ProductionMatrixClient) -> None:
        client.restore_login(USER, device_id, token)
        await client.sync()

    return start


def opened_with(token: str) -> Start:
    async def start(client: ProductionMatrixClient) -> None:
        client.restore_login(USER, DEVICE, token)
        await client.open()

    return start


async def refused(client: ProductionMatrixClient, start: Start, error: type[CryptoStoreError], remedy: str) -> None:
    """Start twice: an error that a supervisor's restart meets, too."""
    async with client:
        for _ in range(2):
            with pytest.raises(error, match=remedy):
                await start(client)
        assert client.store is None


FOREIGN = "token of nobody's device"
ANOTHER = "token of another device"


@pytest.mark.parametrize(
    ("changes", "start", "error", "remedy"),
    [
        ({"pickle_key": "another key"}, with_password(None), WrongPickleKey, "pickle key"),
        ({"server_url": "http://127.0.0.1:1"}, with_password("password"), HomeserverUnavailable, "127.0.0.1:1"),
        ({"server_url": "example.org"}, with_password("password"), ConfigurationError, "https://"),
        ({"device_id": OTHER}, with_password("wrong"), ConfigurationError, "M_FORBIDDEN"),
        ({"device_id": OTHER}, with_password(None), ConfigurationError, f"give a password.*{DEVICE}"),
        ({"user": "@Bot:small"}, with_password("password"), ConfigurationError, USER),
        ({"user": "@Bot:small", "device_id": None}, with_password("password"), ConfigurationError, USER),
        ({}, with_token(FOREIGN), ConfigurationError, "give a password"),
        ({}, with_token(ANOTHER), ConfigurationError, f"that of {USER} {OTHER}.*log in again"),
        ({}, with_restored(FOREIGN), AccessTokenRejected, "M_UNKNOWN_TOKEN"),
        ({}, with_restored(ANOTHER), ConfigurationError, f"that of {USER} {OTHER}"),
        ({}, opened_with(FOREIGN), AccessTokenRejected, "M_UNKNOWN_TOKEN"),
        ({}, opened_with(ANOTHER), ConfigurationError, f"that of {USER} {OTHER}"),
        ({"device_id": None}, with_token(ANOTHER), ConfigurationError, f"that of {USER} {OTHER}"),
    ],
)
def test_a_start_that_cannot_succeed_fences_nobody(
    url: str, changes: dict[str, Any], start: Start, error: type[CryptoStoreError], remedy: str
) -> None:
    async def scenario() -> None:
        async with healthy(url) as (server, _bot):
            server.tokens[ANOTHER] = (USER, OTHER)
            await refused(client_at(**{"server_url": server.url, "url": url, **changes}), start, error, remedy)

    asyncio.run(scenario())


def test_a_wrong_password_after_the_token_was_lost_fences_nobody(url: str) -> None:
    async def scenario() -> None:
        async with healthy(url) as (server, bot):
            # Another homeserver's address: the stored token is not shown to it.
            elsewhere = server.url.replace("127.0.0.1", "localhost")
            await refused(client_at(elsewhere, url), with_password("wrong"), ConfigurationError, "M_FORBIDDEN")
            assert bot.access_token in server.tokens

    asyncio.run(scenario())


@pytest.mark.parametrize("start", [with_password("password"), "its token"], ids=["password", "token"])
def test_a_database_that_is_not_the_devices_is_left_as_it_was(url: str, start: Start | str) -> None:
    async def scenario() -> None:
        async with healthy(url) as (server, bot):
            how = with_token(bot.access_token) if isinstance(start, str) else start
            with open_backend("memory://looks") as empty:
                await refused(client_at(server.url, "memory://looks"), how, ConfigurationError, "import-nio")
                assert empty.accounts() == {}

    asyncio.run(scenario())


def test_another_identity_of_the_device_is_not_taken_over(memory_url: str) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            with open_backend(memory_url):
                owner = client_at(server.url, memory_url)
                await owner.login_or_restore("password")
                await owner.flush()
                taken = owners(memory_url)
                keys = {f"{name}:{DEVICE}": "other" for name in ("curve25519", "ed25519")}
                server.device_keys[USER, DEVICE] = {"user_id": USER, "device_id": DEVICE, "keys": keys}
                server.device_keys[USER, DEVICE] |= {"algorithms": [], "signatures": {}}
                rival = client_at(server.url, memory_url)
                await refused(rival, with_password("password"), ConfigurationError, "other keys than the database")
                assert owners(memory_url) == taken
                await owner.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(("device_id", "password"), [(None, "wrong"), (OTHER, "wrong"), (OTHER, None), (None, None)])
def test_a_refused_first_login_leaves_no_account(url: str, device_id: str | None, password: str | None) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            with open_backend(url) as backend:
                client = client_at(server.url, url, device_id)
                await refused(client, with_password(password), ConfigurationError, "M_FORBIDDEN|give a password")
                assert backend.accounts() == {}
                bot = client_at(server.url, url, None)
                await bot.login_or_restore("password")
                assert [account.user_id for account in backend.accounts()] == [USER]
                await bot.close()

    asyncio.run(scenario())


def test_a_misspelt_user_leaves_neither_an_account_nor_a_device(memory_url: str) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            with open_backend(memory_url) as backend:
                client = client_at(server.url, memory_url, None, user="@Bot:small")
                await refused(client, with_password("password"), ConfigurationError, f"{USER}.*user=")
                assert backend.accounts() == {}
                assert server.tokens == {}

    asyncio.run(scenario())


def silent(asked: Request) -> web.StreamResponse | None:
    return web.json_response({"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 60_000}, status=429)


def hung_up(asked: Request) -> web.StreamResponse | None:
    return HangUp()


@pytest.mark.parametrize("fault", [silent, hung_up])
@pytest.mark.parametrize("device_id", [DEVICE, None])
def test_a_homeserver_without_an_answer_is_an_error_inside_the_deadline(
    memory_url: str, device_id: str | None, fault: Callable[[Request], web.StreamResponse | None]
) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            server.faults.append(fault)
            with open_backend(memory_url) as backend:
                # nio itself would ask for ever.
                patient = replace(CONFIG, max_timeouts=None, max_limit_exceeded=None)
                client = client_at(server.url, memory_url, device_id, config=patient, homeserver_deadline=SHORT)
                await refused(client, with_password("password"), HomeserverUnavailable, server.url)
                assert backend.accounts() == {}
                server.faults.clear()
                await client.login_or_restore("password")
                await client.close()

    asyncio.run(scenario())


def test_a_login_whose_answer_is_lost_goes_on_as_the_same_device(memory_url: str) -> None:
    def loses_the_answer(asked: Request) -> web.StreamResponse | None:
        return HangUp() if asked.is_for("/login") and asked.method == "POST" else None

    async def scenario() -> None:
        async with small_homeserver() as server:
            server.faults.append(loses_the_answer)
            with open_backend(memory_url):
                async with client_at(server.url, memory_url, None) as client:
                    with pytest.raises(HomeserverUnavailable):
                        await client.login_or_restore("password")
                server.faults.clear()
                async with client_at(server.url, memory_url, None) as client:
                    await client.login_or_restore("password")
                assert len({request.body["device_id"] for request in server.asked("/login") if request.body}) == 1

    asyncio.run(scenario())


def test_closed_while_the_homeserver_is_asked(memory_url: str) -> None:
    async def scenario() -> None:
        async with healthy(memory_url) as (server, _bot):
            asked = asyncio.Event()

            def never(_: Request) -> web.StreamResponse | None:
                asked.set()
                return web.json_response({"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 60_000}, status=429)

            server.faults.append(never)
            late = client_at(server.url, memory_url, homeserver_deadline=60.0)
            starting = asyncio.create_task(late.login_or_restore())
            await asked.wait()
            await asyncio.wait_for(late.close(), 10)
            with pytest.raises(CryptoStoreError, match="closed while it was being opened"):
                await starting
            server.faults.clear()

    asyncio.run(scenario())


def test_a_restored_login_opens_at_the_first_request(url: str) -> None:
    async def scenario() -> None:
        async with healthy(url) as (server, bot):
            later = client_at(server.url, url)
            later.restore_login(USER, DEVICE, bot.access_token)
            assert later.store is None
            assert owners(url) == {BOT: 1}
            await bot.close()
            await later.sync()
            assert owners(url) == {BOT: 2}
            assert later.statistics.loop_reads == 0
            asked = [request.path.rpartition("/")[2] for request in server.requests[-4:]]
            assert asked == ["whoami", "query", event_type(DEVICE), "sync"]
            await later.close()

    asyncio.run(scenario())


def test_openings_that_wait_for_a_homeserver_hold_no_flush_up(memory_url: str) -> None:
    asked = 0
    all_wait = asyncio.Event()

    def silent_for_others(request: Request) -> web.StreamResponse | None:
        nonlocal asked
        if request.is_for("/sync") or request.user == ALICE.user_id:
            return None
        asked += 1
        if asked >= _MOST:
            all_wait.set()
        return silent(request)

    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            await alice.say("one")
            server.faults.append(silent_for_others)
            waiting = [
                client_at(server.url, memory_url, f"D{number}", homeserver_deadline=300.0) for number in range(_MOST)
            ]
            starts = [asyncio.create_task(client.login_or_restore("password")) for client in waiting]
            await asyncio.wait_for(all_wait.wait(), 25)
            await alice.say("two")
            assert not any(start.done() for start in starts)
            for client in waiting:
                await client.close()
            assert {type(error) for error in await asyncio.gather(*starts, return_exceptions=True)} == {StoreClosed}
            await bob.client.sync()
            assert bob.read == ["one", "two"]

    asyncio.run(scenario())


def test_a_login_of_nios_looks_too(memory_url: str) -> None:
    async def scenario() -> None:
        async with healthy(memory_url) as (server, bot):
            await bot.close()
            with open_backend("memory://looks") as empty:
                client = client_at(server.url, "memory://looks")
                with pytest.raises(ConfigurationError, match="other keys than the database"):
                    await client.login("password")
                assert empty.accounts() == {}
                await client.close()
            client = client_at(server.url, memory_url)
            await client.login("password")
            assert client.machine.account.shared
            await client.sync()
            await client.close()

    asyncio.run(scenario())
