"""A running client deletes what is old: nothing in use, nothing that changed meanwhile, and a little at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from backed_up import until
from client_pairs import BOB, ROOM, Person, lockable, locked, people, say_in_new_sessions
from cryptostore import (
    BackendUnavailable,
    Changes,
    CryptoStore,
    FencedOut,
    InboundGroupSession,
    ReplayPage,
)
from cryptostore.nio import Pruning
from cryptostore.nio.client import pruner as pruner_module
from cryptostore.nio.client import threads
from cryptostore.nio.times import now
from example_records import example
from pruned import EVERYTHING, NO_TIME, no_pauses, pruner, talking
from small_joined_rooms import JoinedRooms
from told import Told, told

__all__ = ["no_pauses", "told"]

pytestmark = pytest.mark.usefixtures("no_pauses")


async def add_old_sessions(person: Person, number: int) -> None:
    """So many sessions more, with a replay page each."""
    many = [
        example(InboundGroupSession, room_id=ROOM, session_id=f"{each}", received_at=now()) for each in range(number)
    ]
    pages = [ReplayPage(each.session_id, each.sender_key, 0, b"", b"", 1) for each in many]
    person.store.storage.write(Changes([*many, *pages]))
    await person.client.flush()


def after_each_look(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], Awaitable[None]]) -> None:
    """Let something happen between the look at a page and what is deleted of it."""
    in_thread: Any = threads.in_thread

    async def looked(*call: Any) -> Any:
        page = await in_thread(*call)
        if page:
            await happens()
        return page

    monkeypatch.setattr(pruner_module, "in_thread", looked)


def test_nothing_is_deleted_unless_it_is_asked_for(memory_url: str) -> None:
    async def scenario() -> None:
        async with talking(memory_url, Pruning()) as (_, _, bob):
            assert pruner(bob)._task is None
            await pruner(bob).round()
            assert len(bob.stored(InboundGroupSession)) == 4
            assert bob.client.statistics.pruned == 0

    asyncio.run(scenario())


def test_a_start_costs_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    read: Any = CryptoStore._read

    def counted(store: CryptoStore, attempt: Any) -> Any:
        looks.append(str(attempt))
        return read(store, attempt)

    monkeypatch.setattr(CryptoStore, "_read", counted)

    async def looks_with(prune: Pruning) -> int:
        looks.clear()
        async with people(f"memory://{uuid4()}", prune=prune) as (_, _, bob):
            assert (pruner(bob)._task is None) is (prune == Pruning())
        return len(looks)

    async def scenario() -> None:
        assert await looks_with(Pruning()) == await looks_with(EVERYTHING)

    asyncio.run(scenario())


def test_old_sessions_go_with_their_pages_while_the_client_goes_on(url: str) -> None:
    async def scenario() -> None:
        async with talking(url, EVERYTHING) as (_, alice, bob):
            await pruner(bob).round()
            assert (bob.stored(InboundGroupSession), bob.stored(ReplayPage)) == ([], [])
            assert bob.client.statistics.pruned == 8
            # In memory, too: the session's next message cannot be read.
            await alice.say("in a session that Bob deleted")
            say_in_new_sessions(alice, ["in a new one"])
            await bob.round()
            assert bob.read[4:] == ["in a new one"]
            await bob.client.flush()
            assert len(bob.stored(InboundGroupSession)) == len(bob.stored(ReplayPage)) == 1
            assert bob.client.statistics.loop_reads == 0

    asyncio.run(scenario())


def test_what_is_in_use_is_kept(url: str) -> None:
    async def scenario() -> None:
        async with talking(url, EVERYTHING) as (_, _, bob):
            sessions = bob.stored(InboundGroupSession)
            used = sessions[1]
            held = bob.store.load_inbound_group_sessions().get(ROOM, used.sender_key, used.session_id)
            assert held is not None
            await pruner(bob).round()
            assert bob.stored(InboundGroupSession) == [used]
            assert [page.session_id for page in bob.stored(ReplayPage)] == [used.session_id]
            assert bob.store.load_inbound_group_sessions().get(ROOM, used.sender_key, used.session_id) is held
            del held
            await pruner(bob).round()
            assert bob.stored(InboundGroupSession) == []

    asyncio.run(scenario())


@pytest.mark.parametrize("is_flushed", [False, True])
def test_a_session_that_is_used_between_the_look_and_the_deletion_is_kept(
    url: str, is_flushed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with talking(url, EVERYTHING) as (_, _, bob):
            used = bob.stored(InboundGroupSession)[2]

            async def use() -> None:
                bob.store.replays.use((used.session_id, used.sender_key), 100, "$another", 1)
                if is_flushed:
                    await bob.client.flush()

            after_each_look(monkeypatch, use)
            await pruner(bob).round()
            await bob.client.flush()
            assert bob.stored(InboundGroupSession) == [used]
            assert {page.page for page in bob.stored(ReplayPage)} == {0, 1}

    asyncio.run(scenario())


def test_a_session_that_comes_again_meanwhile_is_kept(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with talking(memory_url, EVERYTHING) as (_, _, bob):
            kept = bob.stored(InboundGroupSession)[0]

            async def come_again() -> None:
                bob.store.storage.write(Changes([kept]))

            after_each_look(monkeypatch, come_again)
            await pruner(bob).round()
            assert bob.stored(InboundGroupSession) == [kept]

    asyncio.run(scenario())


def test_batches_are_small_and_syncs_go_on_between_them(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    apply = CryptoStore.apply

    def counted(store: CryptoStore, changes: Changes) -> None:
        sizes.append(len(changes))
        apply(store, changes)

    async def scenario() -> None:
        async with talking(url, EVERYTHING) as (_, alice, bob):
            await add_old_sessions(bob, 600)
            say_in_new_sessions(alice, ["meanwhile"])
            monkeypatch.setattr(CryptoStore, "apply", counted)
            pruning = asyncio.create_task(pruner(bob).round())
            await until(lambda: bool(sizes))
            await bob.round()
            assert bob.read[-1] == "meanwhile"
            assert not pruning.done()
            await pruning
            assert len([size for size in sizes if size > 50]) >= 12
            # What a sync has to write may go along.
            assert max(sizes) <= 100 + 30
            assert bob.client.statistics.loop_reads == 0

    asyncio.run(scenario())


def test_it_goes_on_by_itself_and_ends_with_the_client(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_FIRST", "_BETWEEN"):
        monkeypatch.setattr(pruner_module, name, (0.05, 0.1))

    async def scenario() -> None:
        async with people(memory_url, prune=EVERYTHING) as (_, alice, bob):
            await alice.say("first")
            await bob.round()
            await until(lambda: bob.client.statistics.pruned == 2)
            task = pruner(bob)._task
            assert task is not None
            assert not task.done()
            await bob.client.close()
            assert task.done()
            await bob.restart()
            assert pruner(bob)._task is None

    asyncio.run(scenario())


def test_after_a_failure_it_tries_again(
    memory_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("_FIRST", "_AFTER_FAILURE"):
        monkeypatch.setattr(pruner_module, name, (0, 0))
    caplog.set_level("INFO")

    async def scenario() -> None:
        async with people(memory_url, prune=Pruning(left_rooms=NO_TIME)) as (server, _, bob):
            # This homeserver does not say which rooms there are.
            await bob.round()
            await until(lambda: len([each for each in caplog.messages if "in which rooms" in each]) > 2)
            JoinedRooms(server)
            await until(lambda: server.requests[-1].is_for("joined_rooms"))

    asyncio.run(scenario())


def test_a_client_that_was_fenced_out_deletes_nothing(url: str) -> None:
    async def scenario() -> None:
        async with talking(url, EVERYTHING) as (server, _, bob):
            other = Person(server, BOB, url)
            await other.start()
            with pytest.raises(FencedOut):
                await pruner(bob).round()
            assert len(other.stored(InboundGroupSession)) == 4
            assert bob.client.statistics.pruned == 0
            await other.client.close()
            with suppress(FencedOut):
                await bob.client.close()

    asyncio.run(scenario())


def test_a_database_that_is_away_takes_no_more_than_it_was_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with talking(lockable(tmp_path), EVERYTHING) as (_, _, bob):
            with locked(tmp_path), pytest.raises(BackendUnavailable):
                await pruner(bob).round()
            # In memory they are gone, and with the next flush in the database, whole.
            (session, *_) = bob.stored(InboundGroupSession)
            assert bob.store.load_inbound_group_sessions().get(ROOM, session.sender_key, session.session_id) is None
            await bob.client.flush()
            await pruner(bob).round()
            assert (bob.stored(InboundGroupSession), bob.stored(ReplayPage)) == ([], [])

    asyncio.run(scenario())


def test_a_client_that_is_closed_in_the_middle_leaves_whole_sessions(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruner_module, "_BATCH", 10)
    monkeypatch.setattr(pruner_module, "_FIRST", (0, 0))

    async def scenario() -> None:
        async with people(url) as (_, _, bob):
            await add_old_sessions(bob, 200)
            pruner(bob)._settings = EVERYTHING
            await bob.round()
            await until(lambda: bob.client.statistics.pruned > 30)
            await bob.client.close()
            sessions, pages = bob.stored(InboundGroupSession), bob.stored(ReplayPage)
            assert 0 < len(sessions) < 200
            assert {each.session_id for each in sessions} == {each.session_id for each in pages}
            await bob.restart()

    asyncio.run(scenario())


def test_what_was_deleted_is_told_once_a_round(memory_url: str, told: Told, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def scenario() -> None:
        async with talking(memory_url, EVERYTHING) as (_, _, bob):
            for _ in range(2):
                await pruner(bob).round()

    asyncio.run(scenario())
    assert told.of("pruned", "account", "deleted") == [(BOB, {"inbound_group_session": 4, "replay_page": 4})]
    said = [each for each in caplog.messages if "deleted what was old" in each]
    assert said == [f"deleted what was old of {BOB}: 4 inbound_group_session, 4 replay_page"]
