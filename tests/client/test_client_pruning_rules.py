"""What a running client deletes by each rule, and what it keeps all the same."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from datetime import datetime, timedelta

import pytest

from backed_up import backed_up, hear_new_sessions
from client_pairs import ALICE, BOB, ROOM
from clock import Clock
from cryptostore import (
    Changes,
    Device,
    EncryptedRoom,
    InboundGroupSession,
    KeyBackup,
    MissedEvents,
    OlmSession,
    OutboundGroupSession,
    OutgoingKeyRequest,
    ReplayPage,
    SessionToBackUp,
    SharedPart,
)
from cryptostore.nio import Pruning
from cryptostore.nio.client import pruner as pruner_module
from cryptostore.nio.times import now
from example_records import example
from pruned import EVERYTHING, NO_TIME, no_pauses, pruner, talking
from small_joined_rooms import JoinedRooms
from spoiling import spoil

__all__ = ["no_pauses"]

pytestmark = pytest.mark.usefixtures("no_pauses")


def test_what_the_key_backup_lacks_is_kept(memory_url: str) -> None:
    async def scenario() -> None:
        async with backed_up(memory_url) as (_, alice, bob):
            pruner(bob)._settings = EVERYTHING
            await hear_new_sessions(alice, bob, 4)
            await bob.client.back_up()
            await bob.client.flush()
            assert [backup.is_walked for backup in bob.stored(KeyBackup)] == [True]
            new = example(InboundGroupSession, room_id=ROOM, session_id="new", received_at=now(), from_backup=False)
            bob.store.storage.write(bob.store.to_back_up.with_notes([new]))
            await bob.client.flush()
            await pruner(bob).round()
            assert bob.stored(InboundGroupSession) == [new]
            assert len(bob.stored(SessionToBackUp)) == 1

    asyncio.run(scenario())


def test_a_backup_that_has_not_seen_all_keeps_all(memory_url: str) -> None:
    async def scenario() -> None:
        async with talking(memory_url, Pruning(older_than=NO_TIME, replay_pages=NO_TIME)) as (_, _, bob):
            bob.store.to_back_up.use(example(KeyBackup, is_walked=False))
            await pruner(bob).round()
            assert len(bob.stored(InboundGroupSession)) == 4
            bob.store.to_back_up.use(example(KeyBackup, is_walked=True))
            await pruner(bob).round()
            assert bob.stored(InboundGroupSession) == []

    asyncio.run(scenario())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pruner_module, "now", clock)
    return clock


def test_rooms_that_were_left(url: str, clock: Clock) -> None:
    async def scenario() -> None:
        async with talking(url, Pruning(left_rooms=timedelta(days=30))) as (server, _, bob):
            JoinedRooms(server)
            await bob.say("Bob's own")
            await bob.client.flush()
            assert bob.stored(SharedPart)
            server.join(ROOM, BOB.user_id, "leave")
            await bob.round()
            await pruner(bob).round()
            clock.passes(days=31)
            await bob.restart()
            await bob.round()
            sessions = bob.stored(InboundGroupSession)
            assert len(sessions) == 5
            await pruner(bob).round()
            await bob.client.flush()
            for kind in (InboundGroupSession, ReplayPage, OutboundGroupSession, SharedPart):
                assert bob.stored(kind) == [], kind
            assert bob.stored(EncryptedRoom) == [EncryptedRoom(ROOM, bob.stored(EncryptedRoom)[0].settings)]

    asyncio.run(scenario())


def test_a_backup_of_which_nothing_is_known_keeps_all(memory_url: str) -> None:
    async def scenario() -> None:
        async with talking(memory_url, EVERYTHING) as (_, _, bob):
            bob.store.to_back_up.use(example(KeyBackup, is_walked=True))
            await bob.client.close()
            spoil(memory_url, BOB, KeyBackup)
            await bob.restart()
            await pruner(bob).round()
            assert len(bob.stored(InboundGroupSession)) == 4

    asyncio.run(scenario())


def test_a_room_that_an_answer_lacks_was_not_left(memory_url: str, clock: Clock) -> None:
    async def scenario() -> None:
        async with talking(memory_url, Pruning(left_rooms=timedelta(days=30))) as (server, _, bob):
            joined = JoinedRooms(server)
            for lacking in [{ROOM}, {ROOM}, set(), {ROOM}, {ROOM}]:
                joined.lacking = lacking
                await pruner(bob).round()
                clock.passes(days=20)
            assert len(bob.stored(InboundGroupSession)) == 4
            await pruner(bob).round()
            assert bob.stored(InboundGroupSession) == []

    asyncio.run(scenario())


def test_devices_that_are_gone(url: str) -> None:
    async def scenario() -> None:
        async with talking(url, Pruning(gone_devices=NO_TIME)) as (server, alice, bob):
            assert len(bob.stored(OlmSession)) == 1
            await pruner(bob).round()
            assert len(bob.stored(OlmSession)) == 1
            server.delete_device((ALICE.user_id, ALICE.device_id))
            bob.client.machine.add_changed_users({ALICE.user_id})
            await bob.client.keys_query()
            await bob.client.flush()
            assert [each.deleted for each in bob.stored(Device) if each.user_id == ALICE.user_id] == [True]
            gc.collect()
            await pruner(bob).round()
            assert bob.stored(OlmSession) == []
            assert not any(each.user_id == ALICE.user_id for each in bob.stored(Device))
            assert not bob.store.load_device_keys()[ALICE.user_id]
            with suppress(Exception):
                await alice.client.close()

    asyncio.run(scenario())


def test_the_rest(memory_url: str) -> None:
    async def scenario() -> None:
        rules = Pruning(answered_requests=True, missed_events=NO_TIME, replay_pages=NO_TIME, olm_sessions=1)
        async with talking(memory_url, rules) as (_, _, bob):
            (first, *_) = bob.stored(InboundGroupSession)
            request = OutgoingKeyRequest("request", first.session_id, ROOM, "m.megolm.v1.aes-sha2")
            bob.store.storage.write(Changes([request]))
            bob.client.machine.outgoing_key_requests = bob.store.load_outgoing_key_requests()
            bob.store.gaps.missed.put(example(MissedEvents, room_id=ROOM, noticed_at=now() - timedelta(days=1)))
            old = datetime(2020, 1, 1).astimezone()
            sessions = bob.stored(OlmSession)
            more = example(OlmSession, sender_key=sessions[0].sender_key, session_id="old", last_used_at=old)
            bob.store.storage.write(Changes([more, ReplayPage("gone", "gone", 0, b"", b"", 1)]))
            await bob.client.flush()
            await pruner(bob).round()
            await bob.client.flush()
            assert (bob.stored(OutgoingKeyRequest), bob.stored(MissedEvents)) == ([], [])
            assert bob.client.missed_events == []
            assert bob.client.machine.outgoing_key_requests == {}
            assert [each.session_id for each in bob.stored(OlmSession)] == [sessions[0].session_id]
            # Those that were used today stay: their day is kept to the week.
            assert len(bob.stored(ReplayPage)) == 4

    asyncio.run(scenario())
