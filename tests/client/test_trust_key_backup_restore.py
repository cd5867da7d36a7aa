"""Sessions that come back from a backup on the server: all of them, or one that a message needs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from nio import MegolmEvent, MessageDirection, RoomMessagesResponse, RoomMessageText
from nio.crypto import InboundGroupSession as Live

from backed_up import PRIVATE_KEY, backed_up, give_key, until
from client_pairs import BOB, ROOM, Person, away_for_messages, say_in_new_sessions
from cryptostore import Account, ConfigurationError, HomeserverUnavailable, InboundGroupSession, SessionToBackUp
from cryptostore.nio.trust import backup_on_demand, backup_restore
from cryptostore.nio.trust.backup_restore import RestoredBackup
from cryptostore.trust.key_backup import KEY_BACKUP, BackupDecryption, BackupEncryption, public_key
from cryptostore.trust.recovery_key import encode
from cryptostore.trust.secret_storage import DEFAULT_KEY, KeyDescription, seal
from small_homeserver import Request
from small_room_keys import RoomKeys
from told import Told, told

__all__ = ["told"]

LAPTOP = Account(BOB.user_id, "BOBLAPTOP")
STORAGE_KEY = bytes(range(50, 82))
TEXTS = ["one", "two", "three", "four"]


@asynccontextmanager
async def laptop(url: str, *, key: bool = True) -> AsyncIterator[tuple[RoomKeys, Person, Person]]:
    """Bob has read messages in four sessions and backed them up; his database is lost, and he has a new device."""
    async with backed_up(url) as (keys, alice, bob):
        await alice.say(TEXTS[0])
        say_in_new_sessions(alice, TEXTS[1:])
        await bob.round()
        await bob.client.back_up()
        await bob.client.close()
        new = Person(keys.server, LAPTOP, url)
        try:
            await new.start()
            if key:
                give_key(keys, new)
            yield keys, alice, new
        finally:
            await new.client.close()


def asked_for_keys(keys: RoomKeys) -> list[Request]:
    return [request for request in keys.server.asked("room_keys/keys") if request.method == "GET"]


def test_a_new_device_reads_everything(url: str, told: Told) -> None:
    async def scenario() -> None:
        async with laptop(url) as (keys, _alice, bob):
            seen: list[tuple[int, int]] = []
            restored = await bob.client.restore_backup(lambda done, total: seen.append((done, total)))
            assert restored == RestoredBackup("1", total=4, taken_in=4, skipped=0)
            assert seen[-1] == (4, 4)
            rows = bob.stored(InboundGroupSession)
            assert (len(rows), all(row.from_backup for row in rows)) == (4, True)
            await bob.round()
            assert bob.read == TEXTS
            assert bob.client.statistics.loop_reads == 0
            # It is all there: nothing of it goes up again.
            await bob.client.back_up()
            assert len(keys.put) == 4
            assert await bob.client.restore_backup() == RestoredBackup("1", total=4, taken_in=0, skipped=0)
            assert bob.stored(SessionToBackUp) == []
            facts = told.of("keys_imported", "account", "records", "way", "source")
            assert facts == [(LAPTOP, 4, "client.restore_backup", bob.client.homeserver)]

    asyncio.run(scenario())


def test_a_backup_of_any_size_comes_in_pieces(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_PIECE", "_TURN", "_BATCH"):
        monkeypatch.setattr(backup_restore, name, 2)

    async def scenario() -> None:
        async with laptop(memory_url) as (_keys, _alice, bob):
            flushes = bob.client.statistics.flushes
            assert (await bob.client.restore_backup()).taken_in == 4
            assert bob.client.statistics.flushes > flushes + 1
            assert len(bob.stored(InboundGroupSession)) == 4

    asyncio.run(scenario())


def test_entries_of_no_use_are_reported_and_left_out(memory_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with laptop(memory_url) as (keys, _alice, bob):
            entries = keys.current(BOB.user_id).entries
            one, two, three, four = entries[ROOM]
            entries[ROOM][one] = entries[ROOM][two]
            entries[ROOM][three] = {"session_data": {"ciphertext": "nonsense"}}
            entries[ROOM][four] = with_long_chain(entries[ROOM][four], four)
            entries["!" + "x" * 300] = {two: entries[ROOM][two]}
            entries["!odd:small"] = {"session": "text"}  # type: ignore[dict-item]  # what a homeserver might send
            restored = await bob.client.restore_backup()
            assert (restored.total, restored.taken_in, restored.skipped) == (5, 1, 4)
            (row,) = bob.stored(InboundGroupSession)
            assert row.session_id == two

    asyncio.run(scenario())
    assert "left out 1 entries of the key backup: it holds another session" in caplog.text
    assert "no base64" in caplog.text


def with_long_chain(entry: Any, session_id: str) -> Any:
    """An entry that says that its session was forwarded very often."""
    key = public_key(PRIVATE_KEY)
    session = BackupDecryption(PRIVATE_KEY).session(ROOM, session_id, entry)
    return BackupEncryption(key).entry(replace(session, forwarding_chain=(key,) * 101))


def test_what_came_directly_is_better_than_what_comes_from_there(url: str) -> None:
    async def scenario() -> None:
        async with backed_up(url) as (_keys, alice, bob):
            await alice.say("one")
            await bob.round()
            await bob.client.back_up()
            assert (await bob.client.restore_backup()).taken_in == 0
            (row,) = bob.stored(InboundGroupSession)
            assert not row.from_backup

    asyncio.run(scenario())


def test_a_backup_that_is_cut_off_is_no_whole_one(memory_url: str, monkeypatch: pytest.MonkeyPatch, told: Told) -> None:
    monkeypatch.setattr(backup_restore, "_PIECE", 2)

    async def scenario() -> None:
        async with laptop(memory_url) as (keys, _alice, bob):

            def cut(request: Request) -> web.StreamResponse | None:
                if not request.path.endswith("room_keys/keys"):
                    return None
                entries = keys.current(BOB.user_id).entries[ROOM]
                return web.Response(text=json.dumps({"rooms": {ROOM: {"sessions": entries}}})[:-900])

            keys.server.faults.append(cut)
            with pytest.raises(HomeserverUnavailable, match="did not send the whole key backup: it is cut off"):
                await bob.client.restore_backup()
            await bob.client.flush()
            there = len(bob.stored(InboundGroupSession))
            assert 0 < there < 4
            keys.server.faults[:] = [lambda _request: web.json_response({}, status=503)]
            with pytest.raises(HomeserverUnavailable):
                await bob.client.restore_backup()
            keys.server.faults.clear()
            assert (await bob.client.restore_backup()).taken_in == 4 - there
            assert told.of("keys_imported", "records") == [(there,), (4 - there,)]

    asyncio.run(scenario())


def test_without_a_key_or_a_backup_the_text_says_what_to_do(memory_url: str) -> None:
    async def scenario() -> None:
        async with laptop(memory_url, key=False) as (keys, _alice, bob):
            with pytest.raises(ConfigurationError, match="give the recovery key"):
                await bob.client.restore_backup()
            keys.current(BOB.user_id).is_deleted = True
            with pytest.raises(ConfigurationError, match="has no key backup"):
                await bob.client.restore_backup()

    asyncio.run(scenario())


def test_the_recovery_key_of_the_backup_itself_is_taken(memory_url: str) -> None:
    async def scenario() -> None:
        async with laptop(memory_url, key=False) as (_keys, _alice, bob):
            assert (await bob.client.restore_backup(recovery_key=encode(PRIVATE_KEY))).taken_in == 4

    asyncio.run(scenario())


def test_the_recovery_key_of_secret_storage_opens_the_backup(memory_url: str) -> None:
    async def scenario() -> None:
        async with laptop(memory_url, key=False) as (keys, _alice, bob):
            storage_key = KeyDescription.make(STORAGE_KEY)
            sealed = seal(KEY_BACKUP, storage_key.key_id, STORAGE_KEY, PRIVATE_KEY)
            keys.set_account_data(BOB.user_id, DEFAULT_KEY, {"key": storage_key.key_id})
            keys.set_account_data(BOB.user_id, storage_key.event_type, storage_key.content())
            keys.set_account_data(BOB.user_id, KEY_BACKUP, {})
            with pytest.raises(ConfigurationError, match="does not hold the key of the key backup"):
                await bob.client.restore_backup(recovery_key=encode(STORAGE_KEY))
            keys.set_account_data(BOB.user_id, KEY_BACKUP, sealed)
            with pytest.raises(ConfigurationError, match="typing error"):
                await bob.client.restore_backup(recovery_key=encode(STORAGE_KEY)[:-1] + "1")
            with pytest.raises(ConfigurationError, match="does not open the account's secret storage"):
                await bob.client.restore_backup(recovery_key=encode(bytes(32)))
            assert bob.stored(InboundGroupSession) == []
            assert (await bob.client.restore_backup(recovery_key=encode(STORAGE_KEY))).taken_in == 4

    asyncio.run(scenario())


def test_a_message_without_its_key_is_read_when_the_backup_has_it(url: str) -> None:
    async def scenario() -> None:
        async with laptop(url) as (keys, _alice, bob):
            unread: list[str] = []

            async def note(_room: Any, event: Any) -> None:
                unread.append(event.event_id)

            bob.client.add_event_callback(note, MegolmEvent)
            await bob.round()
            assert (len(unread), bob.read) == (4, [])
            await until(lambda: len(bob.read) == 4)
            assert sorted(bob.read) == sorted(TEXTS)
            assert len(asked_for_keys(keys)) == 4
            assert bob.client.statistics.loop_reads == 0
            assert all(row.from_backup for row in bob.stored(InboundGroupSession))

    asyncio.run(scenario())


def test_a_session_that_the_backup_lacks_is_asked_for_once(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with laptop(memory_url) as (keys, alice, bob):
            keys.current(BOB.user_id).entries[ROOM].clear()
            bob.client._trust.key_backup.longest_delay = 0
            await bob.round()
            await until(lambda: len(asked_for_keys(keys)) == 4)
            await say_again(alice)
            await bob.round()
            await bob.client.back_up()
            assert len(asked_for_keys(keys)) == 4
            monkeypatch.setattr(backup_on_demand, "ASK_AGAIN", 0.0)
            await say_again(alice)
            await bob.round()
            await until(lambda: len(asked_for_keys(keys)) == 5)
            assert bob.read == []

    asyncio.run(scenario())


async def say_again(alice: Person) -> None:
    """A message in the last session, of which Bob's laptop gets no key."""
    kind, encrypted = alice.client.encrypt(ROOM, "m.room.message", {"msgtype": "m.text", "body": "again"})
    device = alice.account.user_id, alice.account.device_id
    alice.server._say(device, ROOM, kind, f"again {alice.server.position}", encrypted)


def test_a_message_from_before_the_session_that_is_there_is_read(memory_url: str) -> None:
    async def scenario() -> None:
        async with backed_up(memory_url) as (keys, alice, bob):
            await alice.say("one")
            await bob.round()
            await bob.client.back_up()
            (row,) = bob.stored(InboundGroupSession)
            await alice.say("two")
            later = Person(keys.server, LAPTOP, memory_url)
            try:
                await later.start()
                give_key(keys, later)
                # The key came directly, from the second message on.
                outbound = alice.client.machine.outbound_group_sessions[ROOM]
                direct = Live(outbound.session_key, row.signing_key, row.sender_key, ROOM)
                later.store.load_inbound_group_sessions().add(direct)
                later.store.save_inbound_group_session(direct)
                await later.round()
                await until(lambda: later.read == ["one", "two"])
                (kept,) = later.stored(InboundGroupSession)
                assert (kept.first_known_index, kept.from_backup) == (0, False)
            finally:
                await later.client.close()

    asyncio.run(scenario())


def test_a_message_that_no_sync_brought_is_read_when_it_is_asked_for(memory_url: str) -> None:
    async def scenario() -> None:
        async with laptop(memory_url) as (keys, _alice, bob):
            await bob.client.sync(sync_filter={"room": {"rooms": []}})
            messages = await bob.client.room_messages(ROOM, "t0", direction=MessageDirection.front)
            assert isinstance(messages, RoomMessagesResponse)
            unread = [event for event in messages.chunk if isinstance(event, MegolmEvent)]
            read = [await bob.client.decrypt_with_backup(event) for event in unread]
            assert [getattr(event, "body", None) for event in read] == TEXTS
            assert bob.client.statistics.loop_reads == 0
            keys.current(BOB.user_id).is_deleted = True
            unread[0].session_id = "another"
            assert await bob.client.decrypt_with_backup(unread[0]) is None

    asyncio.run(scenario())


def test_what_a_callback_raises_for_a_late_message_ends_the_next_sync(memory_url: str) -> None:
    async def scenario() -> None:
        async with laptop(memory_url) as (_keys, alice, bob):

            async def fail(_room: Any, _event: Any) -> None:
                raise ZeroDivisionError

            bob.client.add_event_callback(fail, RoomMessageText)
            await say_again(alice)
            await bob.round()
            # All that can be read is handed on before, both messages of the last session too.
            await until(lambda: len(bob.read) == 5)
            await until(lambda: bool(bob.client._trust.key_backup.late_events._error))
            with pytest.raises(ZeroDivisionError):
                await bob.round()

    asyncio.run(scenario())


def test_a_callback_for_a_late_message_may_close_the_client(memory_url: str) -> None:
    async def scenario() -> None:
        async with laptop(memory_url) as (_keys, _alice, bob):
            closed: list[str] = []

            async def close(_room: Any, event: Any) -> None:
                await bob.client.close()
                closed.append(event.body)

            bob.client.add_event_callback(close, RoomMessageText)
            await bob.round()
            await until(lambda: bool(closed))
            assert len(closed) == 1

    asyncio.run(scenario())


def test_a_homeserver_that_is_away_is_asked_again(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_on_demand, "_FIRST_PAUSE", 0.01)

    async def scenario() -> None:
        async with laptop(memory_url) as (keys, _alice, bob):

            def fault(request: Request) -> web.StreamResponse | None:
                is_early = len(asked_for_keys(keys)) < 3
                return web.json_response({}, status=502) if request.is_for("room_keys/keys/") and is_early else None

            keys.server.faults.append(fault)
            await bob.round()
            await until(lambda: len(bob.read) == 4)

    asyncio.run(scenario())


def test_late_messages_wait_for_the_database(
    memory_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backup_on_demand, "_FIRST_PAUSE", 0.01)

    async def scenario() -> None:
        async with laptop(memory_url) as (_keys, _alice, bob):
            # The sync's own time is the first one.
            away_for_messages(monkeypatch, {2, 3, 5})
            await bob.round()
            await until(lambda: len(bob.read) == 4)

    asyncio.run(scenario())
    assert f"messages of '{ROOM}' became readable and are handed on later: away" in caplog.text


def test_a_key_that_comes_by_itself_meanwhile_does_as_well(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_on_demand, "_FIRST_PAUSE", 0.01)

    async def scenario() -> None:
        async with laptop(memory_url) as (keys, _alice, bob):
            keys.server.faults.append(
                lambda request: web.json_response({}, status=502) if request.is_for("room_keys/keys/") else None
            )
            await bob.round()
            await until(lambda: len(asked_for_keys(keys)) > 1)
            for session_id, entry in keys.current(BOB.user_id).entries.pop(ROOM).items():
                found = BackupDecryption(PRIVATE_KEY).session(ROOM, session_id, entry)
                direct = Live.import_session(found.session_key, found.signing_key, found.sender_key, ROOM)
                bob.store.load_inbound_group_sessions().add(direct)
                bob.store.save_inbound_group_session(direct)
            keys.server.faults.clear()
            await until(lambda: len(bob.read) == 4)

    asyncio.run(scenario())


def test_no_more_messages_wait_than_memory_should_hold(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_on_demand, "MOST_EVENTS", 2)

    async def scenario() -> None:
        async with laptop(memory_url) as (_keys, _alice, bob):
            await bob.round()
            await until(lambda: len(bob.read) == 2)
            assert bob.read == TEXTS[2:]

    asyncio.run(scenario())
