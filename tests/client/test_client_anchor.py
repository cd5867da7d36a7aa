"""The anchor: a database that was put back is refused before it is taken over, and nothing else ever is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web

from client_pairs import BOB
from cryptostore import (
    Account,
    ConfigurationError,
    CryptoStoreError,
    DatabaseWentBack,
    HomeserverUnavailable,
    Value,
    new_pickle_key,
    open_backend,
)
from cryptostore.nio import ProductionMatrixClient
from cryptostore.nio.client import anchoring
from cryptostore.nio.client.anchor import ANCHOR, event_type
from cryptostore.store.copying import How, Place, copy
from cryptostore.store.rekeying import rekey
from cryptostore_contract.samples import KEY
from own_identities import USER, client_at, identities
from put_back import backup_of
from restored_devices import REFUSED, Talk, talking
from small_homeserver import PAGES, Json, Request, SmallHomeserver, page
from small_identities import Identities, is_anchor
from spoiling import spoil

Answer = Callable[[], web.StreamResponse]

PROXY = [partial(page, status) for status in PAGES]


def refusal(status: int) -> web.StreamResponse:
    return web.json_response({"errcode": "M_UNKNOWN", "error": "no"}, status=status)


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/keys.db"


def epoch(url: str, account: Account = BOB) -> int:
    with open_backend(url) as backend:
        return backend.accounts()[account].epoch


def test_a_database_that_was_put_back_is_refused_before_anything_is_sent(file_url: str) -> None:
    async def scenario() -> None:
        async with talking(file_url) as talk:
            await talk.bob.client.close()
            put_back = backup_of(file_url)
            await talk.bob.begin_again()
            await talk.bob.killed()
            put_back()
            before, anchor = epoch(file_url), talk.anchor()
            talk.server.requests.clear()
            for _ in range(3):
                # A supervisor tries again and again, which makes nothing better.
                await talk.bob.begin_again_refused()
            assert {request.path.rpartition("/")[2] for request in talk.server.requests} == {
                "whoami",
                "query",
                event_type(BOB.device_id),
            }
            assert not [request for request in talk.server.requests if request.method == "PUT"]
            assert (epoch(file_url), talk.anchor()) == (before, anchor)

    asyncio.run(scenario())


def test_two_copies_that_took_turns_are_told_apart_by_the_draw(file_url: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with talking(file_url) as talk:
            await talk.bob.client.close()
            put_back = backup_of(file_url)
            for _ in range(2):
                await talk.bob.begin_again()
                hidden = talk.anchor()
                await talk.bob.killed()
                put_back()
                talk.set_anchor({})
            talk.set_anchor(hidden)
            await talk.bob.begin_again_refused()

    asyncio.run(scenario())


async def _killed(talk: Talk) -> None:
    await talk.bob.killed()


async def _closed(talk: Talk) -> None:
    await talk.bob.client.close()


async def _moved(talk: Talk, *, leave: bool = False) -> None:
    await talk.bob.client.close()
    other = f"memory://{uuid4()}"
    # It ends with its last user.
    talk.kept_open = open_backend(other)
    with open_backend(talk.bob.url) as source:
        copied = copy(Place(source, "there"), Place(talk.kept_open, "here"), BOB, How(leave_source=leave))
    assert not copied.different
    talk.bob.url = other


async def _copied(talk: Talk) -> None:
    await _moved(talk, leave=True)


async def _rekeyed(talk: Talk) -> None:
    await talk.bob.client.close()
    with open_backend(talk.bob.url) as backend:
        new = new_pickle_key()
        rekey(backend, BOB, KEY, new)
        rekey(backend, BOB, new, KEY)


async def _taken_over(talk: Talk) -> None:
    await talk.bob.client.close()
    with open_backend(talk.bob.url) as backend:
        for _ in range(3):
            backend.open_store(BOB, pickle_key=KEY).close()


async def _spoilt(talk: Talk) -> None:
    await talk.bob.client.close()
    spoil(talk.bob.url, BOB, Value)


async def _never_brought(talk: Talk) -> None:
    """The last anchor was durable here, and the homeserver never had it."""
    talk.server.faults.append(lambda request: web.Response(status=500) if is_put(request) else None)
    await talk.bob.restart()
    await talk.bob.client.close()
    talk.server.faults.clear()


def is_put(request: Request) -> bool:
    return request.method == "PUT" and is_anchor(request.path)


@pytest.mark.parametrize(
    "happens",
    [_killed, _closed, _moved, _copied, _rekeyed, _taken_over, _spoilt, _never_brought],
    ids=lambda each: each.__name__,
)
def test_ordinary_life_is_no_alarm(file_url: str, happens: Callable[[Talk], Any]) -> None:
    async def scenario() -> None:
        async with talking(file_url) as talk:
            await happens(talk)
            for _ in range(2):
                await talk.bob.begin_again()
                await talk.both_ways("later", 1)
                await talk.bob.client.close()

    asyncio.run(scenario())


SPOILT: list[Json] = [{}, {"sealed": 7}, {"sealed": "A" * 90}]


@pytest.mark.parametrize("content", SPOILT)
def test_what_somebody_else_put_there_is_no_alarm_and_is_replaced(file_url: str, content: Json) -> None:
    async def scenario() -> None:
        async with talking(file_url) as talk:
            await talk.bob.client.close()
            talk.set_anchor(content)
            await talk.bob.begin_again()
            assert talk.anchor().keys() == {"sealed"}
            assert talk.anchor() != content

    asyncio.run(scenario())


def test_a_homeserver_that_was_put_back_is_no_alarm(file_url: str) -> None:
    async def scenario() -> None:
        async with talking(file_url) as talk:
            older = talk.anchor()
            for _ in range(2):
                await talk.bob.restart()
            talk.set_anchor(older)
            await talk.bob.restart()
            assert talk.anchor() != older

    asyncio.run(scenario())


def test_a_device_that_was_deleted_and_logs_in_again_is_another_account(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known):
            for _ in range(3):
                client = client_at(server, memory_url, device_id="BOT", cross_signing=False)
                with open_backend(memory_url) as backend:
                    async with client:
                        await client.login_or_restore("password")
                        await client.sync()
                    backend.delete_account(Account(USER, "BOT"))
                server.delete_device((USER, "BOT"))
                assert len(known.anchors[USER]) == 1

    asyncio.run(scenario())


def test_each_device_has_its_own(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known):
            for device_id in ("ONE", "OTHER" * 50, "/.?"):
                async with client_at(server, memory_url, device_id=device_id, cross_signing=False) as client:
                    await client.login_or_restore("password")
            assert len(known.anchors[USER]) == 3
            assert max(map(len, known.anchors[USER])) < 100

    asyncio.run(scenario())


@pytest.mark.parametrize("status", [403, 501])
def test_a_homeserver_without_account_data_keeps_none(file_url: str, status: int) -> None:
    async def scenario() -> None:
        async with talking(file_url) as talk:
            await talk.bob.client.close()
            refuse = {"errcode": "M_UNRECOGNIZED", "error": "no"}
            talk.server.faults.append(
                lambda request: web.json_response(refuse, status=status) if is_anchor(request.path) else None
            )
            talk.server.requests.clear()
            await talk.bob.begin_again()
            await talk.bob.round()
            await talk.bob.client.close()
            # It was asked once.
            assert len([request for request in talk.server.requests if is_anchor(request.path)]) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("answer", [partial(refusal, 502), partial(refusal, 400), *PROXY])
def test_a_homeserver_that_does_not_answer_ends_the_start(file_url: str, answer: Answer) -> None:
    async def scenario() -> None:
        async with talking(file_url) as talk:
            await talk.bob.client.close()
            before = epoch(file_url)
            talk.server.faults.append(lambda request: answer() if is_anchor(request.path) else None)
            with pytest.raises((HomeserverUnavailable, ConfigurationError), match="how far this account had come"):
                await talk.bob.begin_again()
            assert epoch(file_url) == before
            talk.server.faults.clear()
            await talk.bob.begin_again()

    asyncio.run(scenario())


async def opened_offline(talk: Talk) -> ProductionMatrixClient:
    """Bob's client, opened before there was a token."""
    token = talk.bob.client.access_token or talk.token_of_bob()
    talk.bob.client = talk.bob._make()
    await talk.bob.client.open()
    talk.bob.client.restore_login(BOB.user_id, BOB.device_id, token)
    return talk.bob.client


def test_an_account_that_was_opened_without_a_token_is_compared_before_its_first_sync(file_url: str) -> None:
    async def scenario() -> None:
        async with talking(file_url) as talk:
            await talk.bob.client.close()
            put_back = backup_of(file_url)
            await talk.bob.begin_again()
            await talk.bob.client.close()
            put_back()
            anchor = talk.anchor()
            for _ in range(3):
                client = await opened_offline(talk)
                with pytest.raises(DatabaseWentBack, match=REFUSED):
                    await client.sync()
                await client.close()
                assert talk.anchor() == anchor

    asyncio.run(scenario())


def test_it_is_brought_seldom_and_never_because_of_itself(file_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr(anchoring, "time", SimpleNamespace(monotonic=lambda: now))

    async def scenario() -> None:
        nonlocal now
        async with talking(file_url) as talk:
            await talk.bob.restart()
            await talk.both_ways("much", 6)
            puts = len(anchors_brought(talk.server))
            now += anchoring.INTERVAL - 1
            await talk.bob.client.sync()
            await settled(talk)
            assert len(anchors_brought(talk.server)) == puts
            now += 1
            await talk.bob.client.sync()
            await settled(talk)
            assert len(anchors_brought(talk.server)) == puts + 1
            for _ in range(5):
                # The sync that brings it is a batch, too.
                now += anchoring.INTERVAL
                await talk.bob.client.sync()
                await settled(talk)
            assert len(anchors_brought(talk.server)) == puts + 1
            await talk.bob.client.close()
            assert len(anchors_brought(talk.server)) == puts + 2

    asyncio.run(scenario())


async def settled(talk: Talk) -> None:
    task = talk.bob.client._trust.anchoring._task
    if task is not None:
        await task


def anchors_brought(server: SmallHomeserver) -> list[Request]:
    return [request for request in server.asked("", BOB.user_id) if is_put(request)]


def test_it_is_durable_before_the_homeserver_hears_of_it(file_url: str) -> None:
    async def scenario() -> None:
        async with talking(file_url) as talk:
            seen: list[bytes] = []

            def look(request: Request) -> None:
                if is_put(request):
                    [row] = [row for row in talk.bob.stored(Value) if row.key == ANCHOR]
                    seen.append(row.value)

            talk.server.faults.append(look)
            await talk.bob.restart()
            # The last one of the old process, and the first of the new one.
            assert len(set(seen)) == 2

    asyncio.run(scenario())


@pytest.mark.parametrize("answer", [partial(refusal, 500), *PROXY])
def test_a_start_that_cannot_bring_it_goes_on_and_brings_it_later(file_url: str, answer: Answer) -> None:
    async def scenario() -> None:
        async with talking(file_url) as talk:
            talk.server.faults.append(lambda request: answer() if is_put(request) else None)
            await talk.bob.restart()
            before = talk.anchor()
            talk.server.faults.clear()
            talk.bob.client._trust.anchoring._next = 0.0
            await talk.bob.client.sync()
            await settled(talk)
            assert talk.anchor() != before
            known: Identities = talk.identities
            assert len(known.anchors[BOB.user_id]) == 1

    asyncio.run(scenario())


def test_an_owner_that_advances_it_meanwhile_is_no_alarm(file_url: str) -> None:
    """The new process has read the database, and asks the homeserver when its anchor is newer already."""

    async def scenario() -> None:
        async with talking(file_url) as talk:
            await talk.bob.restart()
            older = talk.bob.client
            advanced: list[Request] = []

            async def advance(request: Request) -> None:
                if request.method == "GET" and is_anchor(request.path) and not advanced:
                    advanced.append(request)
                    await older._trust.anchoring._bring_next()

            talk.server.pauses.append(advance)
            talk.bob.client = talk.bob._make()
            await talk.bob.start()
            assert advanced
            await talk.bob.client.close()
            with suppress(CryptoStoreError):
                await older.close()
            talk.server.pauses.clear()
            await talk.bob.begin_again()

    asyncio.run(scenario())
