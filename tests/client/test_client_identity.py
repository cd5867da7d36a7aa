"""A client whose keys may not be the device's asks for nothing in its name."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import web
from nio import SyncError

from client_pairs import ALICE, BOB, CONFIG, ROOM, Person, people
from cryptostore import (
    Account,
    ConfigurationError,
    HomeserverUnavailable,
    Mode,
    OlmAccount,
    Ownership,
    open_backend,
)
from cryptostore.nio import ProductionMatrixClient
from cryptostore_contract.samples import KEY
from small_homeserver import Request, small_homeserver


def a_hiccup(asked: Request) -> web.StreamResponse | None:
    if not asked.is_for("/keys/query"):
        return None
    return web.json_response({"errcode": "M_UNKNOWN", "error": "try later"}, status=500)


def test_a_sync_waits_until_the_identity_was_checked(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            await alice.say("one")
            server.faults.append(a_hiccup)
            asked = len(server.asked("/sync", BOB.user_id))
            # Bob's device with an empty database, while the homeserver does not say whose keys it knows.
            stranger = await Person(server, BOB, "memory://").start()
            for _ in range(2):
                answer = await stranger.client.sync()
                assert isinstance(answer, SyncError)
                assert answer.status_code == "M_UNKNOWN"
            with suppress(TimeoutError):
                await asyncio.wait_for(stranger.client.sync_forever(timeout=50), 0.5)
            server.faults.clear()
            with pytest.raises(ConfigurationError, match="other keys"):
                await stranger.client.sync()
            assert len(server.asked("/sync", BOB.user_id)) == asked
            await stranger.client.close()
            # Nothing was acknowledged in the name of those who can read it.
            await bob.client.sync()
            assert bob.read == ["one"]

    asyncio.run(scenario())


def stored_accounts(url: str) -> dict[Account, Ownership]:
    with open_backend(url) as backend:
        return backend.accounts()


def is_empty(url: str) -> bool:
    """Whether no account in the database holds a record."""
    with open_backend(url) as backend:
        stores = [backend.open_store(account, Mode.READ) for account in backend.accounts()]
        return not any(list(store.stored_rows()) for store in stores)


def test_nothing_is_written_before_the_identity_was_checked(memory_url: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        empty = f"sqlite:///{tmp_path}/empty.db"
        async with people(memory_url) as (server, _alice, _bob):
            stranger = Person(server, BOB, empty, flush_interval=0.01)
            await stranger.start()
            await asyncio.sleep(0.1)
            server.faults.append(a_hiccup)
            with pytest.raises(HomeserverUnavailable):
                await stranger.client.flush()
            with pytest.raises(HomeserverUnavailable):
                await stranger.client.joined_members(ROOM)
            server.faults.clear()
            for attempt in (stranger.client.flush, stranger.client.login_or_restore, stranger.client.sync):
                with pytest.raises(ConfigurationError, match="other keys"):
                    await attempt()
            assert is_empty(empty)
            await stranger.client.close()
            assert is_empty(empty)

    asyncio.run(scenario())


def test_a_start_that_the_homeserver_refuses_leaves_nothing_behind(memory_url: str) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            async with ProductionMatrixClient(
                server.url, BOB.user_id, "MISTYPED", store=memory_url, pickle_key=KEY, config=CONFIG
            ) as client:
                with pytest.raises(ConfigurationError, match="M_FORBIDDEN"):
                    await client.login_or_restore("wrong")
            assert is_empty(memory_url)

    asyncio.run(scenario())


def test_a_new_identity_is_durable_once_it_was_checked(memory_url: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        url = f"sqlite:///{tmp_path}/keys.db"
        async with small_homeserver() as server:
            person = await Person(server, BOB, url, flush_interval=0.01).start()
            assert await person.client.check_identity() is None
            for _ in range(500):
                await asyncio.sleep(0.01)
                if person.stored(OlmAccount):
                    break
            assert person.stored(OlmAccount)
            await person.client.close()

    asyncio.run(scenario())


def test_what_is_saved_without_a_login_needs_no_homeserver(memory_url: str) -> None:
    async def scenario() -> None:
        client = ProductionMatrixClient(
            "http://127.0.0.1:1", *(BOB.user_id, BOB.device_id), store=memory_url, pickle_key=KEY, config=CONFIG
        )
        keep = open_backend(memory_url)
        for close_it in (client.flush, client.close):
            await client.open()
            await close_it()
        assert list(stored_accounts(memory_url)) == [BOB]
        assert not is_empty(memory_url)
        keep.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("is_new", [True, False], ids=["new", "known"])
def test_a_token_of_another_device_is_refused_before_any_upload(memory_url: str, *, is_new: bool) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, _bob):
            server.tokens["token of another"] = (ALICE.user_id, "ANOTHER")
            await alice.client.close()
            mistaken = Person(server, ALICE, "memory://" if is_new else memory_url)
            await mistaken.client.open()
            mistaken.client.restore_login(ALICE.user_id, ALICE.device_id, "token of another")
            uploads = len(server.asked("/keys/upload"))
            for attempt in (mistaken.client.sync, mistaken.client.keys_upload, mistaken.client.login_or_restore):
                with pytest.raises(ConfigurationError, match=f"the access token is that of {ALICE.user_id} ANOTHER"):
                    await attempt()
            assert len(server.asked("/keys/upload")) == uploads
            assert not server.asked("/sync", "")
            assert (ALICE.user_id, "ANOTHER") not in server.device_keys
            await mistaken.client.close()

    asyncio.run(scenario())


def test_another_token_on_the_same_client_is_checked_again(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, _bob):
            await alice.client.sync()
            server.tokens["token of another"] = (ALICE.user_id, "ANOTHER")
            alice.client.restore_login(ALICE.user_id, ALICE.device_id, "token of another")
            with pytest.raises(ConfigurationError, match="the access token is that of"):
                await alice.client.sync()

    asyncio.run(scenario())


def test_the_right_database_syncs_as_soon_as_the_identity_was_checked(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            await alice.say("one")
            await bob.restart()
            server.faults.append(a_hiccup)
            assert isinstance(await bob.client.sync(), SyncError)
            server.faults.clear()
            await bob.round()
            assert bob.read == ["one"]

    asyncio.run(scenario())
