"""A sync is one batch, its token included, when all of it was handled."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from nio import LocalProtocolError, MatrixRoom, MegolmEvent, RoomKeyEvent, RoomMessageText

from client_pairs import ALICE, BOB, ROOM, Person, people
from cryptostore import InboundGroupSession, OlmMessage, OlmSession, SyncToken
from cryptostore.nio.times import to_utc
from small_homeserver import Json, Request, SmallHomeserver


class Stumble(Exception):
    """What a callback raises."""


def stumbling(person: Person, times: int) -> None:
    """Let the person's callback for messages raise so many times."""
    left = [None] * times

    async def raise_or_not(_room: MatrixRoom, _event: Any) -> None:
        if left:
            left.pop()
            raise Stumble

    person.client.add_event_callback(raise_or_not, RoomMessageText)


def test_keys_and_token_of_a_sync_are_one_batch(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (_, alice, bob):
            await alice.say("one")
            await bob.client.flush()
            flushes = bob.client.statistics.flushes
            await bob.client.sync()
            assert bob.client.statistics.flushes == flushes + 1
            assert len(bob.stored(InboundGroupSession)) == 1
            assert bob.stored(SyncToken) == [SyncToken(bob.client.next_batch)]
            assert bob.stored(OlmMessage) == []

    asyncio.run(scenario())


def test_a_callback_that_raises_leaves_the_token_and_the_events_come_again(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (_, alice, bob):
            token = bob.stored(SyncToken)
            stumbling(bob, 1)
            await alice.say("one")
            with pytest.raises(Stumble):
                await bob.client.sync()
            assert bob.stored(SyncToken) == token == [SyncToken(bob.client.next_batch)]
            await bob.client.sync()
            assert bob.read == ["one", "one"]
            assert bob.stored(SyncToken) != token
            assert bob.client.statistics.redelivered_events == 1
            assert bob.client.machine.wedged_devices == []

    asyncio.run(scenario())


def test_a_redelivery_after_a_crash_wedges_no_session(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (_, alice, bob):
            stumbling(bob, 1)
            await alice.say("one")
            with pytest.raises(Stumble):
                await bob.client.sync()
            # What a send from a callback would do: everything but the token is durable.
            await bob.client.flush()
            assert len(bob.stored(OlmMessage)) == 1
            assert len(bob.stored(InboundGroupSession)) == 1
            for session in bob.store.load_sessions():
                session.creation_time = session.creation_time.replace(year=2020)
                bob.store.save_session(bob_sender(bob), session)
            await bob.client.flush()
            await bob.come_back_after_a_crash()
            await bob.client.sync()
            assert bob.read == ["one", "one"]
            assert bob.client.statistics.redelivered_events == 1
            assert bob.client.machine.wedged_devices == []
            assert bob.stored(OlmMessage) == []

    asyncio.run(scenario())


def bob_sender(bob: Person) -> str:
    (row,) = bob.stored(OlmSession)
    return row.sender_key


def test_a_send_inside_a_callback_flushes_everything_but_the_token(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            token = bob.stored(SyncToken)

            async def answer(_room: MatrixRoom, event: Any) -> None:
                if event.sender == ALICE.user_id:
                    await bob.say(f"answer to {event.body}")

            def look(request: Request) -> None:
                if request.is_for("/send/m.room.encrypted") and request.user == BOB.user_id:
                    assert bob.stored(SyncToken) == token
                    # Alice's key, and Bob's own.
                    assert len(bob.stored(InboundGroupSession)) == 2

            bob.client.add_event_callback(answer, RoomMessageText)
            server.faults.append(look)
            await alice.say("one")
            await bob.client.sync()
            assert bob.stored(SyncToken) != token
            await alice.round()
            assert alice.read[-1] == "answer to one"

    asyncio.run(scenario())


def test_a_sync_inside_a_callback_is_refused(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (_, alice, bob):

            async def sync_again(_room: MatrixRoom, _event: Any) -> None:
                await asyncio.create_task(bob.client.sync())

            bob.client.add_event_callback(sync_again, RoomMessageText)
            await alice.say("one")
            with pytest.raises(LocalProtocolError, match="inside a callback"):
                await bob.client.sync()

    asyncio.run(scenario())


def test_a_cancelled_sync_leaves_the_token(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (_, alice, bob):
            reached = asyncio.Event()

            async def hang(_room: MatrixRoom, _event: Any) -> None:
                if not reached.is_set():
                    reached.set()
                    await asyncio.Event().wait()

            bob.client.add_event_callback(hang, RoomMessageText)
            await alice.say("one")
            before = bob.client.next_batch
            sync = asyncio.create_task(bob.client.sync())
            await reached.wait()
            sync.cancel()
            await asyncio.gather(sync, return_exceptions=True)
            assert bob.client.next_batch == before
            await bob.client.sync()
            assert bob.read == ["one", "one"]

    asyncio.run(scenario())


def test_the_first_sync_of_a_process_asks_for_the_full_state(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (_, alice, bob):
            await bob.restart()
            assert bob.client.rooms == {}
            stumbling(bob, 1)
            await alice.say("one")
            with pytest.raises(Stumble):
                await bob.client.sync()
            bob.client.rooms.clear()
            await bob.client.sync()
            assert set(bob.client.rooms[ROOM].users) == {ALICE.user_id, BOB.user_id}

    asyncio.run(scenario())


def to_device(server: SmallHomeserver, event: Json) -> None:
    server.to_device[BOB.user_id, BOB.device_id].append((server._advance(), event))


def test_poisoned_events_are_counted_and_skipped_and_the_keys_beside_them_kept(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            keys = bob.client.machine.account.identity_keys
            for body in ("not base64 !", "AAAA", "AwoggggG"):
                for kind in (0, 1):
                    content = {
                        "algorithm": "m.olm.v1.curve25519-aes-sha2",
                        "sender_key": "c2VuZGVy",
                        "ciphertext": {keys["curve25519"]: {"type": kind, "body": body}},
                    }
                    to_device(server, {"type": "m.room.encrypted", "sender": ALICE.user_id, "content": content})
            to_device(server, {"type": "m.room_key_request", "sender": ALICE.user_id, "content": {"action": "?"}})
            await alice.say("one")
            await bob.client.sync()
            assert bob.read == ["one"]
            assert bob.client.statistics.poisoned_events >= 3
            poisoned = bob.client.statistics.poisoned_events
            await bob.client.sync()
            assert bob.client.statistics.poisoned_events == poisoned

    asyncio.run(scenario())


@pytest.mark.parametrize("room_id", ["!nul\0:small", "!" + 9_000 * "x"])
def test_a_room_key_for_an_impossible_room_holds_nothing_up(url: str, room_id: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            await alice.say("one")
            await bob.client.sync()
            machine = alice.client.machine
            (device,) = alice.client.device_store.active_user_devices(BOB.user_id)
            machine.create_outbound_group_session(room_id)
            ((_, content),) = machine.share_group_session_parallel(room_id, [BOB.user_id])
            event = {
                "type": "m.room.encrypted",
                "sender": ALICE.user_id,
                "content": content["messages"][BOB.user_id][device.id],
            }
            to_device(server, event)
            await alice.say("two")
            received: list[Any] = []
            bob.client.add_to_device_callback(received.append, RoomKeyEvent)
            await bob.client.sync()
            assert [key.room_id for key in received] == [room_id]
            assert bob.read == ["one", "two"]
            assert bob.stored(SyncToken) == [SyncToken(bob.client.next_batch)]
            assert {row.room_id for row in bob.stored(InboundGroupSession)} == {ROOM}

    asyncio.run(scenario())


def test_a_message_index_seen_in_another_event_is_refused_after_a_restart_too(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            await alice.say("one")
            await bob.client.sync()
            await bob.restart()
            await bob.client.sync()
            _position, event = server.timeline[ROOM][-1]
            server.timeline[ROOM].append((server._advance(), event | {"event_id": "$replay"}))
            server.timeline[ROOM].append((server._advance(), event))
            await bob.client.sync()
            assert bob.read == ["one", "one"]
            assert bob.client.statistics.replays == 1
            assert bob.client.statistics.loop_reads == 0

    asyncio.run(scenario())


def test_sync_forever_ends_its_siblings(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (_, _alice, bob):
            hung: list[Any] = []

            await bob.client.sync()
            bob.client.users_for_key_query.add("@carol:small")
            real = bob.client.keys_query

            async def hang() -> Any:
                hung.append(asyncio.current_task())
                await asyncio.Event().wait()
                return await real()

            bob.client.keys_query = hang  # type: ignore[method-assign]  # a sibling that never ends
            forever = asyncio.create_task(bob.client.sync_forever(timeout=50))
            # The first round waits for its errands alone.
            while not hung:  # noqa: ASYNC110  # the sibling is a replaced method, and says so by a list
                await asyncio.sleep(0.01)
            forever.cancel()
            await asyncio.gather(forever, return_exceptions=True)
            assert hung[0].cancelled()

    asyncio.run(scenario())


def test_a_worse_key_for_a_known_session_does_not_take_its_place(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            await alice.say("one")
            await bob.client.sync()
            (good,) = bob.stored(InboundGroupSession)
            await alice.say("two")
            await bob.client.sync()
            # Alice shares the session as it is now, and a new process of Bob's has the old key only in the database.
            session = alice.client.machine.outbound_group_sessions[ROOM]
            session.users_shared_with.clear()
            session.shared = False
            ((_, content),) = alice.client.machine.share_group_session_parallel(ROOM, [BOB.user_id])
            server._send_to_device(ALICE.user_id, "m.room.encrypted", content["messages"])
            await bob.restart()
            await bob.client.sync()
            assert bob.read == ["one", "two"]
            (kept,) = bob.stored(InboundGroupSession)
            assert kept.first_known_index == good.first_known_index == 0
            assert bob.client.statistics.loop_reads == 0

    asyncio.run(scenario())


def test_a_callback_for_a_worse_key_reads_with_the_better_one(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            await alice.say("one")
            _position, event = server.timeline[ROOM][-1]
            await alice.say("two")
            await bob.client.sync()
            session = alice.client.machine.outbound_group_sessions[ROOM]
            session.users_shared_with.clear()
            session.shared = False
            ((_, content),) = alice.client.machine.share_group_session_parallel(ROOM, [BOB.user_id])
            server._send_to_device(ALICE.user_id, "m.room.encrypted", content["messages"])
            await bob.restart()
            old = MegolmEvent.from_dict(event)
            assert isinstance(old, MegolmEvent)
            old.room_id = ROOM
            read: list[Any] = []
            bob.client.add_to_device_callback(lambda _key: read.append(bob.client.decrypt_event(old)), RoomKeyEvent)
            await bob.client.sync()
            assert [message.body for message in read] == ["one"]

    asyncio.run(scenario())


def test_a_client_that_is_opened_again_begins_where_the_database_is(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (_, alice, bob):
            await bob.client.close()
            other = Person(bob.server, BOB, memory_url)
            await other.start()
            await alice.say("read by the other process")
            await other.client.sync()
            token = other.client.next_batch
            await other.client.close()
            await bob.start()
            assert (bob.client.next_batch, bob.client.loaded_sync_token) == ("", token)
            await alice.say("read by this one")
            await bob.client.sync()
            assert bob.read == ["read by this one"]
            assert set(bob.client.rooms) == {ROOM}

    asyncio.run(scenario())


def test_what_changes_during_a_flush_stays_in_memory_until_the_next(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (_, alice, bob):
            await alice.say("one")
            await bob.client.sync()
            (session,) = list(bob.store.load_sessions())
            sender = bob_sender(bob)
            bob.store.save_session(sender, session)
            flush = asyncio.create_task(bob.client.flush())
            # The batch was taken, and is on its way.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            bob.store.save_session(sender, session)
            used = to_utc(session.use_time)
            # What trying it in vain does.
            session.use_time += timedelta(seconds=1)
            await flush
            assert sender in bob.store.load_sessions()._senders.pinned()
            await bob.client.flush()
            assert sender not in bob.store.load_sessions()._senders.pinned()
            assert [row.last_used_at for row in bob.stored(OlmSession)] == [used]

    asyncio.run(scenario())


def test_an_old_answer_to_a_key_query_leaves_a_user_who_changed_meanwhile_out_of_date(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, _bob):
            alice.client.machine.add_changed_users({BOB.user_id})

            def change(request: Request) -> None:
                if request.is_for("keys/query"):
                    alice.client.machine.add_changed_users({BOB.user_id})

            server.faults.append(change)
            await alice.client.keys_query()
            assert alice.client.users_for_key_query == {BOB.user_id}
            server.faults.clear()
            await alice.client.keys_query()
            assert alice.client.users_for_key_query == set()

    asyncio.run(scenario())
