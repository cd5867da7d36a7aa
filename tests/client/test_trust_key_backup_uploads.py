"""Sessions on their way into a backup on the server: all of them, and none twice, whatever cuts them off."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from aiohttp import web

from backed_up import (
    OTHER_KEY,
    PRIVATE_KEY,
    backed_up,
    hear_new_sessions,
    hurry,
    new_sessions,
    until,
)
from client_pairs import BOB, ROOM, Person
from cryptostore import (
    FencedOut,
    HomeserverUnavailable,
    InboundGroupSession,
    KeyBackup,
    SessionToBackUp,
)
from cryptostore.trust.key_backup import BackupVersion, public_key
from small_homeserver import PAGES, Request, page
from small_room_keys import RoomKeys


def is_upload(request: Request) -> bool:
    return request.method == "PUT" and request.is_for("room_keys/keys")


def uploads(keys: RoomKeys) -> list[Request]:
    return [request for request in keys.server.requests if is_upload(request)]


async def be_cut_off(keys: RoomKeys, alice: Person, bob: Person) -> None:
    """The homeserver is away when six of Bob's ten sessions are in the backup."""
    bob.client._trust.key_backup._uploads._most = 3
    await hear_new_sessions(alice, bob, 10)
    before = len(uploads(keys))

    def fault(request: Request) -> web.StreamResponse | None:
        is_late = is_upload(request) and len(uploads(keys)) - before > 2
        return web.json_response({}, status=502) if is_late else None

    keys.server.faults.append(fault)
    with pytest.raises(HomeserverUnavailable):
        await bob.client.back_up()
    assert len(keys.put) == 6
    keys.server.faults.clear()


def test_a_restart_repeats_nothing(url: str) -> None:
    async def scenario() -> None:
        async with backed_up(url) as (keys, alice, bob):
            await be_cut_off(keys, alice, bob)
            await bob.restart()
            hurry(bob)
            await hear_new_sessions(alice, bob, 1)
            await bob.client.back_up()
            assert (len(keys.put), len(set(keys.put))) == (11, 11)
            await bob.restart()
            await bob.round()
            await bob.client.back_up()
            assert len(keys.put) == 11
            await bob.client.flush()
            (backup,) = bob.stored(KeyBackup)
            assert backup.is_walked

    asyncio.run(scenario())


def test_after_a_crash_at_most_one_request_is_repeated(url: str) -> None:
    async def scenario() -> None:
        async with backed_up(url) as (keys, alice, bob):
            await be_cut_off(keys, alice, bob)
            await bob.come_back_after_a_crash()
            hurry(bob)
            await bob.client.back_up()
            assert len(set(keys.put)) == 10
            assert len(keys.put) <= 13

    asyncio.run(scenario())


def test_what_is_saved_while_a_request_is_under_way_goes_up_with_the_next(memory_url: str) -> None:
    async def scenario() -> None:
        async with backed_up(memory_url) as (keys, alice, bob):
            await hear_new_sessions(alice, bob, 1)
            await bob.client.back_up()
            await hear_new_sessions(alice, bob, 1)
            (before,) = bob.stored(SessionToBackUp)
            better: list[str] = []
            put = keys._put

            def save_again(user: str, found: Any, rooms: Any) -> web.StreamResponse:
                if not better:
                    better.append(before.session_id)
                    bob.store.to_back_up.with_notes(bob.stored(InboundGroupSession))
                return put(user, found, rooms)

            keys._put = save_again  # type: ignore[method-assign]  # something happens on the homeserver's side
            await bob.client.back_up()
            assert [session_id for session_id, _ in keys.put].count(before.session_id) == 2

    asyncio.run(scenario())


def test_a_backup_that_was_left_meanwhile_says_nothing_of_the_present_one(memory_url: str) -> None:
    async def scenario() -> None:
        async with backed_up(memory_url) as (keys, alice, bob):
            await hear_new_sessions(alice, bob, 2)
            put, backups = keys._put, bob.client._trust.key_backup

            def change_first(user: str, found: Any, rooms: Any) -> web.StreamResponse:
                # The answer to the old one comes when the new one is used already.
                keys._put = put  # type: ignore[method-assign]  # once
                answer = put(user, found, rooms)
                keys.make_another(BOB.user_id)
                backups._use(BackupVersion("2", public_key(PRIVATE_KEY), keys.current(BOB.user_id).auth_data, 0))
                return answer

            keys._put = change_first  # type: ignore[method-assign]  # something happens on the homeserver's side
            await bob.client.back_up()
            assert len(keys.session_ids(BOB.user_id)) == 2
            await bob.client.flush()
            (stored,) = bob.stored(KeyBackup)
            assert (stored.version, stored.is_walked) == ("2", True)

    asyncio.run(scenario())


def test_a_client_that_was_fenced_out_uploads_nothing_more(url: str) -> None:
    async def scenario() -> None:
        async with backed_up(url) as (keys, alice, bob):
            await bob.client.back_up()
            await new_sessions(alice, 1)
            backups, go_on = bob.client._trust.key_backup, asyncio.Event()

            async def sleep(seconds: float) -> None:
                await go_on.wait()

            backups._sleep = sleep  # type: ignore[method-assign]  # until another process has the account
            await bob.round()
            task = backups._task
            assert task is not None
            other = Person(keys.server, BOB, url)
            await other.start()
            try:
                # What an upload writes first finds out who has the account now.
                bob.store.secrets.put("another", OTHER_KEY)
                go_on.set()
                await until(task.done)
                assert (task.exception(), keys.put) == (None, [])
                with pytest.raises(FencedOut):
                    await bob.client.back_up()
                await other.client.back_up()
                assert len(keys.put) == 1
            finally:
                await other.client.close()
            with suppress(FencedOut):
                await bob.client.close()

    asyncio.run(scenario())


class Endless(web.Response):
    """An answer that does not come."""

    async def prepare(self, request: Any) -> Any:
        await asyncio.sleep(30)
        return await super().prepare(request)


def test_closing_waits_for_no_homeserver_that_does_not_answer(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cryptostore.nio.trust.key_backup._GRACE", 0.1)

    async def scenario() -> None:
        async with backed_up(memory_url) as (keys, alice, bob):
            await new_sessions(alice, 1)
            keys.server.faults.append(lambda request: Endless() if is_upload(request) else None)
            await bob.round()
            await until(lambda: bool(uploads(keys)))
            async with asyncio.timeout(10):
                await bob.client.close()
            keys.server.faults.clear()
            await bob.restart()
            await bob.client.back_up()
            assert len(keys.put) == 1

    asyncio.run(scenario())


def test_a_homeserver_with_too_many_requests_is_asked_later(memory_url: str) -> None:
    async def scenario() -> None:
        async with backed_up(memory_url) as (keys, alice, bob):
            await hear_new_sessions(alice, bob, 1)
            refusal = {"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 50}
            answers = [web.json_response(refusal, status=429) for _ in range(2)]
            keys.server.faults.append(lambda request: answers.pop() if is_upload(request) and answers else None)
            await bob.client.back_up()
            assert (len(keys.put), len(uploads(keys))) == (1, 3)

    asyncio.run(scenario())


@pytest.mark.parametrize("status", PAGES)
def test_a_proxys_page_is_no_backup(memory_url: str, status: int) -> None:
    async def scenario() -> None:
        async with backed_up(memory_url) as (keys, alice, bob):
            keys.server.faults.append(lambda request: page(status) if is_upload(request) else None)
            await hear_new_sessions(alice, bob, 1)
            with pytest.raises(HomeserverUnavailable):
                await bob.client.back_up()
            keys.server.faults.clear()
            await bob.client.back_up()
            assert len(keys.put) == 1

    asyncio.run(scenario())


def test_a_request_that_is_too_large_is_made_smaller(memory_url: str) -> None:
    async def scenario() -> None:
        async with backed_up(memory_url) as (keys, alice, bob):
            await hear_new_sessions(alice, bob, 10)

            def fault(request: Request) -> web.StreamResponse | None:
                large = is_upload(request) and len(request.body["rooms"][ROOM]["sessions"]) > 4
                return web.json_response({"errcode": "M_TOO_LARGE"}, status=413) if large else None

            keys.server.faults.append(fault)
            await bob.client.back_up()
            assert len(keys.put) == len(keys.session_ids(BOB.user_id)) == 10

    asyncio.run(scenario())


def test_closing_lets_a_request_end_and_notes_it(url: str) -> None:
    async def scenario() -> None:
        async with backed_up(url) as (keys, alice, bob):
            await hear_new_sessions(alice, bob, 2)
            await until(lambda: bool(uploads(keys)))
            await bob.client.close()
            assert bob.client._trust.key_backup._task is None
            count = len(keys.put)
            await bob.restart()
            await bob.round()
            await bob.client.back_up()
            assert (count, len(keys.put)) == (2, 2)

    asyncio.run(scenario())
