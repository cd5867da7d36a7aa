"""Cancelled at every step, failed at every write, closed in the middle: nothing is lost and nothing used twice."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import vodozemac
from nio import LocalProtocolError, MatrixRoom, MegolmEvent, RoomMessageText

from client_pairs import ALICE, BOB, ROOM, Person, people
from cryptostore import Account, BackendUnavailable, InboundGroupSession, StoreClosed
from cryptostore.store.memory import MemoryHandle
from small_homeserver import SmallHomeserver
from told import Told


def used_indices(server: SmallHomeserver) -> list[tuple[str, int]]:
    """The Megolm session and message index of every message in the room."""
    contents = [event["content"] for _, event in server.timeline[ROOM] if "ciphertext" in event["content"]]
    return [
        (content["session_id"], vodozemac.MegolmMessage.from_base64(content["ciphertext"]).message_index())
        for content in contents
    ]


def uploaded(server: SmallHomeserver) -> list[str]:
    return [key for keys in server.uploaded.values() for key in keys]


async def assert_all_is_well(server: SmallHomeserver, alice: Person, bob: Person) -> None:
    """Whatever was sent is read, nothing was used twice, and both directions work."""
    for person in (alice, bob):
        await person.round()
    await alice.say("from Alice, at last")
    await bob.say("from Bob, at last")
    for person in (alice, bob):
        await person.round()
        await person.client.flush()
    assert bob.read[-1] == alice.read[-1] == "from Bob, at last"
    sent = set(server.transactions.values())
    assert len(set(alice.read)) == len(set(bob.read)) == len(sent)
    assert len(set(used_indices(server))) == len(used_indices(server)) == len(sent)
    assert len(set(uploaded(server))) == len(uploaded(server))
    for person in (alice, bob):
        assert person.client.machine.wedged_devices == []
        assert person.client.statistics.replays == person.client.statistics.loop_reads == 0
        # Every message that reached the homeserver can be read by a process that begins again.
        person.read.clear()
        await person.restart()
        person.client.loaded_sync_token = ""
        await person.client.sync()
        assert len(person.read) == len(sent)


class Interrupted:
    """Awaits something, and cancels it where it waits for the `number`th time."""

    def __init__(self, work: Any, number: int) -> None:
        self._work = work
        self._number = number
        self.was_reached = False

    def __await__(self) -> Generator[Any, Any, None]:
        steps = self._work.__await__()
        resume = partial(steps.send, None)
        for number in itertools.count():
            try:
                waits_for = resume()
            except StopIteration:
                return
            if number == self._number:
                self.was_reached = True
                task = asyncio.current_task()
                assert task is not None
                asyncio.get_running_loop().call_soon(task.cancel)
            try:
                yield waits_for
            except BaseException as error:  # noqa: BLE001  # handed on, a cancellation above all
                resume = partial(steps.throw, error)
            else:
                resume = partial(steps.send, None)


async def cancelled_at(number: int, work: Any) -> bool:
    """Cancel `work` where it waits for the `number`th time. False if it had ended before."""
    interrupted = Interrupted(work, number)

    async def run() -> None:
        await interrupted

    await asyncio.gather(asyncio.create_task(run()), return_exceptions=True)
    return interrupted.was_reached


def test_a_sync_that_is_cancelled_anywhere(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            handled: list[str] = []

            async def handle(_room: MatrixRoom, event: Any) -> None:
                await asyncio.sleep(0)
                handled.append(event.body)

            bob.client.add_event_callback(handle, RoomMessageText)
            for number in itertools.count():
                alice.client.invalidate_outbound_session(ROOM)
                await alice.say(f"{number}")
                if not await cancelled_at(number, bob.client.sync()):
                    break
                # Every other time, what is not handled is left for the next.
                if number % 2:
                    await bob.client.sync()
                    assert handled[-1] == f"{number}"
            assert number > 3
            await assert_all_is_well(server, alice, bob)

    asyncio.run(scenario())


def test_a_send_that_is_cancelled_anywhere(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            for number in itertools.count():
                alice.client.invalidate_outbound_session(ROOM)
                reached = await cancelled_at(number, alice.say(f"{number}"))
                assert alice.client.sharing_session == {}
                if not reached:
                    break
            assert number > 3
            await assert_all_is_well(server, alice, bob)

    asyncio.run(scenario())


def test_an_upload_that_is_cancelled_anywhere(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            for number in itertools.count():
                server.take_all_keys((BOB.user_id, BOB.device_id))
                await bob.client.sync()
                bob.client._key_uploads._next = 0.0
                if not await cancelled_at(number, bob.client.keys_upload()):
                    break
            assert number > 1
            await assert_all_is_well(server, alice, bob)

    asyncio.run(scenario())


class Unreliable:
    """A database that refuses some of its commits."""

    def __init__(self) -> None:
        self.commits = 0
        self.refused = range(0)

    def refuse(self, number: int, times: int = 1) -> None:
        """Refuse so many commits after the next `number`."""
        self.commits = 0
        self.refused = range(number, number + times)

    def count(self) -> None:
        """A commit."""
        self.commits += 1
        if self.commits - 1 in self.refused:
            raise BackendUnavailable("away")


@pytest.fixture
def unreliable(monkeypatch: pytest.MonkeyPatch) -> Unreliable:
    """A database in memory is never away by itself."""
    database, commit = Unreliable(), MemoryHandle.commit

    def counted(self: MemoryHandle, *args: Any) -> Any:
        database.count()
        return commit(self, *args)

    monkeypatch.setattr(MemoryHandle, "commit", counted)
    return database


async def tried(work: Any) -> None:
    """Do what may find no database."""
    try:
        await work
    except BackendUnavailable:
        return


@pytest.mark.parametrize("after_a_crash", [False, True])
@pytest.mark.parametrize("number", range(8))
def test_a_database_that_is_away_at_any_write(
    memory_url: str, unreliable: Unreliable, number: int, after_a_crash: bool
) -> None:
    async def scenario() -> None:
        # Without patience for another attempt.
        async with people(f"{memory_url}?deadline=0.01") as (server, alice, bob):

            async def answer(room: MatrixRoom, event: Any) -> None:
                if event.sender == ALICE.user_id and event.body == "question":
                    await bob.say("answer", f"answer to {event.event_id}")

            bob.client.add_event_callback(answer, RoomMessageText)
            unreliable.refuse(number)
            await tried(alice.say("question"))
            # Bob has keys to upload.
            server.take_all_keys((BOB.user_id, BOB.device_id))
            await tried(bob.round())
            await tried(alice.round())
            assert unreliable.commits > number
            if after_a_crash:
                for person in (alice, bob):
                    await person.come_back_after_a_crash()
            bob.client.add_event_callback(answer, RoomMessageText)
            await tried(bob.round())
            await assert_all_is_well(server, alice, bob)

    asyncio.run(scenario())


def test_a_callback_that_closes_the_client_sees_no_message_as_unreadable(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (_, alice, bob):
            for text in ("one", "two"):
                await alice.say(text)
            unread: list[Any] = []

            async def close(_room: MatrixRoom, _event: Any) -> None:
                await bob.client.close()

            bob.client.add_event_callback(close, RoomMessageText)
            bob.client.add_event_callback(lambda _room, event: unread.append(event), MegolmEvent)
            with pytest.raises(StoreClosed):
                await bob.client.sync()
            assert (bob.read, unread) == (["one"], [])
            bob.client = bob._make()
            await bob.start()
            await bob.client.sync()
            assert bob.read == ["one", "one", "two"]
            assert bob.client.machine.wedged_devices == []

    asyncio.run(scenario())


def test_a_client_that_is_closed_from_outside_ends_its_sync(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            await bob.client.sync()
            forever = asyncio.create_task(bob.client.sync_forever(timeout=50))
            await bob.client.synced.wait()
            await bob.client.close()
            with pytest.raises(StoreClosed):
                await forever
            asked = len(server.asked("", BOB.user_id))
            await alice.say("one")
            await bob.start()
            await bob.client.sync()
            assert bob.read == ["one"]
            assert len(server.asked("", BOB.user_id)) > asked

    asyncio.run(scenario())


def test_two_uploads_at_once_are_one(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            server.take_all_keys((BOB.user_id, BOB.device_id))
            await bob.client.sync()
            before = len(server.asked("keys/upload", BOB.user_id))
            outcomes = await asyncio.gather(
                bob.client.keys_upload(), bob.client.keys_upload(), bob.client.sync(), return_exceptions=True
            )
            assert isinstance(outcomes[1], LocalProtocolError)
            assert len(server.asked("keys/upload", BOB.user_id)) == before + 1
            assert len(uploaded(server)) == len(set(uploaded(server)))

    asyncio.run(scenario())


def test_an_import_is_compared_with_what_is_stored_and_survives_a_database_that_is_away(
    memory_url: str, unreliable: Unreliable, tmp_path: Path, told: Told
) -> None:
    async def scenario() -> None:
        async with people(f"{memory_url}?deadline=0.01") as (_, alice, bob):
            for text in ("one", "two"):
                await alice.say(text)
            await bob.client.sync()
            (good,) = [row for row in bob.stored(InboundGroupSession) if row.room_id == ROOM]
            # A file of somebody who joined later: the same key from its second message on.
            (session,) = list(bob.store.load_inbound_group_sessions())
            later = session._session.export_at(1)
            assert later is not None
            session._session, better = vodozemac.InboundGroupSession.import_session(later), session._session
            await bob.client.export_keys(str(tmp_path / "worse"), "passphrase", count=1)
            session._session = better
            await bob.client.export_keys(str(tmp_path / "good"), "passphrase", count=1)
            await bob.restart()
            unreliable.refuse(0)
            with pytest.raises(BackendUnavailable):
                await bob.client.import_keys(str(tmp_path / "worse"), "passphrase")
            await bob.client.import_keys(str(tmp_path / "worse"), "passphrase")
            (kept,) = bob.stored(InboundGroupSession)
            assert kept.first_known_index == good.first_known_index == 0
            assert bob.client.statistics.loop_reads == 0
            # Into an empty account, with the database away for a while.
            carol = Person(alice.server, Account("@carol:small", "CAROLPHONE"), f"{memory_url}-empty?deadline=0.01")
            await carol.start()
            unreliable.refuse(0, times=2)
            with pytest.raises(BackendUnavailable):
                await carol.client.import_keys(str(tmp_path / "good"), "passphrase")
            with pytest.raises(BackendUnavailable):
                await carol.client.flush()
            # What was taken in before the database went away is kept.
            await carol.client.flush()
            assert [row.session_id for row in carol.stored(InboundGroupSession)] == [good.session_id]
            await carol.client.close()

    asyncio.run(scenario())
    assert told.of("keys_imported", "account", "records", "way", "source") == [
        (BOB, 0, "client.import_keys", str(tmp_path / "worse")),
        (BOB, 0, "client.import_keys", str(tmp_path / "worse")),
        (Account("@carol:small", "CAROLPHONE"), 1, "client.import_keys", str(tmp_path / "good")),
    ]
