"""Sessions on their way into a backup on the server, and which backup that is."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web
from nio.events import RoomMessageText

from backed_up import KEY_ID, PRIVATE_KEY, SEED, STORAGE_KEY, backed_up, give_key, hurry, until
from client_pairs import BOB, ROOM, Person, people, say_in_new_sessions
from cryptostore import (
    ConfigurationError,
    FencedOut,
    HomeserverUnavailable,
    InboundGroupSession,
    KeyBackup,
    SessionToBackUp,
)
from cryptostore.nio.provenance import note_origin
from cryptostore.nio.trust import backup_uploads
from cryptostore.nio.trust.key_backup import KeyBackupState
from cryptostore.trust import signatures
from cryptostore.trust.key_backup import KEY_BACKUP, BackupDecryption, BackupVersion, public_key
from cryptostore.trust.secret_storage import seal
from small_homeserver import Request
from small_room_keys import RoomKeys

OTHER_KEY = bytes(range(100, 132))


async def new_sessions(alice: Person, count: int) -> None:
    """Messages of Alice's in so many new Megolm sessions."""
    if ROOM not in alice.client.machine.outbound_group_sessions:
        await alice.say("first")
        count -= 1
    say_in_new_sessions(alice, [str(uuid4()) for _ in range(count)])


def of_events(person: Person) -> list[Any]:
    """The messages that a person reads from now on."""
    events: list[Any] = []

    async def note(_room: Any, event: Any) -> None:
        events.append(event)

    person.client.add_event_callback(note, RoomMessageText)
    return events


def test_a_session_from_a_backup_verifies_nobody(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (_server, alice, bob):
            events = of_events(bob)
            await alice.say("one")
            await bob.round()
            (device,) = bob.client.device_store.active_user_devices(alice.account.user_id)
            bob.client.verify_device(device)
            await alice.say("two")
            await bob.round()
            (session,) = bob.client.machine.inbound_group_store
            note_origin(session, from_backup=True)
            await alice.say("three")
            # A backup may claim any key; of a verified device nio refuses those that are not its own.
            session.ed25519 = "another"
            await alice.say("four")
            await bob.round()
            assert [(event.body, event.verified) for event in events] == [
                ("one", False),
                ("two", True),
                ("three", False),
                ("four", False),
            ]
            assert session.forwarding_chain == []

    asyncio.run(scenario())


def test_without_a_key_nothing_is_asked(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            RoomKeys(server)
            await alice.say("one")
            await bob.round()
            await bob.round()
            assert server.asked("room_keys") == []
            assert bob.client.key_backup == KeyBackupState()
            with pytest.raises(ConfigurationError, match="no key for a key backup"):
                await bob.client.back_up()

    asyncio.run(scenario())


def test_a_backup_is_made_and_what_there_is_goes_up_beside_the_syncs(url: str) -> None:
    async def scenario() -> None:
        async with backed_up(url) as (keys, alice, bob):
            await alice.say("one")
            await bob.say("two")
            await bob.round()
            await until(lambda: len(keys.put) == 2)
            await bob.client.back_up()
            stored = {row.session_id: row for row in bob.stored(InboundGroupSession)}
            assert keys.session_ids(BOB.user_id) == stored.keys()
            decryption = BackupDecryption(PRIVATE_KEY)
            for session_id, entry in keys.current(BOB.user_id).entries[ROOM].items():
                found = decryption.session(ROOM, session_id, entry)
                assert found == backup_uploads.backed_up(stored[session_id])
            assert bob.client.key_backup == KeyBackupState("1", can_restore=True)
            # What comes later goes up, too, and nothing twice.
            await new_sessions(alice, 1)
            await bob.round()
            await until(lambda: len(keys.put) == 3)
            await bob.client.back_up()
            await bob.client.flush()
            assert (len(set(keys.put)), bob.stored(SessionToBackUp)) == (3, [])

    asyncio.run(scenario())


def test_the_backup_is_vouched_for_by_the_identity_and_the_device(memory_url: str) -> None:
    async def scenario() -> None:
        async with backed_up(memory_url) as (keys, _alice, bob):
            await bob.client.back_up()
            version = keys.current(BOB.user_id)
            assert version.auth_data["public_key"] == public_key(PRIVATE_KEY)
            shown = BackupVersion("1", public_key(PRIVATE_KEY), version.auth_data, 0)
            assert shown.is_signed_by(BOB.user_id, signatures.public_key(SEED))
            device_key = bob.client.machine.account.identity_keys["ed25519"]
            device_id = f"ed25519:{BOB.device_id}"
            assert signatures.is_signed(version.auth_data, BOB.user_id, device_key, device_id)
            (posted,) = [request for request in keys.server.asked("room_keys/version") if request.method == "POST"]
            assert PRIVATE_KEY.hex() not in json.dumps(posted.body)

    asyncio.run(scenario())


def test_a_restart_repeats_nothing(url: str) -> None:
    async def scenario() -> None:
        async with backed_up(url) as (keys, alice, bob):
            bob.client._trust.key_backup._uploads._most = 3
            await new_sessions(alice, 10)
            await bob.round()
            stop_after(keys, 2)
            with pytest.raises(HomeserverUnavailable):
                await bob.client.back_up()
            assert len(keys.put) == 6
            keys.server.faults.clear()
            await bob.restart()
            hurry(bob)
            await new_sessions(alice, 1)
            await bob.round()
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


def stop_after(keys: RoomKeys, requests: int) -> None:
    """The homeserver is away after so many more uploads."""
    before = len([request for request in keys.server.requests if is_upload(request)])

    def fault(request: Request) -> web.StreamResponse | None:
        uploads = len([each for each in keys.server.requests if is_upload(each)]) - before
        return web.json_response({}, status=502) if is_upload(request) and uploads > requests else None

    keys.server.faults.append(fault)


def is_upload(request: Request) -> bool:
    return request.method == "PUT" and request.is_for("room_keys/keys")


def test_after_a_crash_at_most_one_request_is_repeated(url: str) -> None:
    async def scenario() -> None:
        async with backed_up(url) as (keys, alice, bob):
            bob.client._trust.key_backup._uploads._most = 3
            await new_sessions(alice, 10)
            await bob.round()
            stop_after(keys, 2)
            with pytest.raises(HomeserverUnavailable):
                await bob.client.back_up()
            keys.server.faults.clear()
            await bob.come_back_after_a_crash()
            hurry(bob)
            await bob.client.back_up()
            assert len(set(keys.put)) == 10
            assert len(keys.put) <= 13

    asyncio.run(scenario())


def test_what_is_saved_while_a_request_is_under_way_goes_up_with_the_next(memory_url: str) -> None:
    async def scenario() -> None:
        async with backed_up(memory_url) as (keys, alice, bob):
            await new_sessions(alice, 1)
            await bob.round()
            await bob.client.back_up()
            await new_sessions(alice, 1)
            await bob.round()
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
            await new_sessions(alice, 2)
            await bob.round()
            put, backups = keys._put, bob.client._trust.key_backup

            def change_first(user: str, found: Any, rooms: Any) -> web.StreamResponse:
                # The answer to the old one comes when the new one is used already.
                keys._put = put  # type: ignore[method-assign]  # once
                answer = put(user, found, rooms)
                version = keys.current(BOB.user_id)
                keys.versions[BOB.user_id].append(type(version)(version.algorithm, version.auth_data))
                backups._use(BackupVersion("2", public_key(PRIVATE_KEY), version.auth_data, 0))
                return answer

            keys._put = change_first  # type: ignore[method-assign]  # something happens on the homeserver's side
            await bob.client.back_up()
            assert len(keys.session_ids(BOB.user_id)) == 2
            await bob.client.flush()
            (stored,) = bob.stored(KeyBackup)
            assert (stored.version, stored.is_walked) == ("2", True)

    asyncio.run(scenario())


def test_a_new_version_gets_everything(url: str) -> None:
    async def scenario() -> None:
        async with backed_up(url) as (keys, alice, bob):
            await new_sessions(alice, 2)
            await bob.round()
            await bob.client.back_up()
            # Another client of the user makes a new backup with the same key.
            version = keys.current(BOB.user_id)
            keys.versions[BOB.user_id].append(type(version)(version.algorithm, version.auth_data))
            await new_sessions(alice, 1)
            await bob.round()
            await until(lambda: len(keys.current(BOB.user_id).entries[ROOM]) == 3)
            assert bob.client.key_backup.version == "2"

    with_short_pauses(scenario)


def with_short_pauses(scenario: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cryptostore.nio.trust.key_backup._FIRST_PAUSE", 0.01)
        asyncio.run(scenario())


def test_a_backup_of_another_is_not_used(memory_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with backed_up(memory_url) as (keys, alice, bob):
            give_key(keys, alice, OTHER_KEY, seed=OTHER_KEY)
            await alice.client.back_up()
            keys.versions[BOB.user_id] = keys.versions[alice.account.user_id]
            await alice.say("one")
            with pytest.raises(ConfigurationError, match="is another's"):
                await bob.client.back_up()
            await bob.round()
            with pytest.raises(ConfigurationError, match="another private key"):
                await bob.client.restore_backup()
            assert keys.put == [each for each in keys.put if each[0] in alice_sessions(alice)]
            assert "another's" in bob.client.key_backup.problem
            assert not bob.client.key_backup.version

    asyncio.run(scenario())
    assert "is another's" in caplog.text


def test_a_backup_of_another_is_replaced_when_somebody_says_so(memory_url: str) -> None:
    async def scenario() -> None:
        async with backed_up(memory_url) as (keys, alice, bob):
            give_key(keys, alice, OTHER_KEY, seed=OTHER_KEY)
            await alice.client.back_up()
            keys.versions[BOB.user_id] = list(keys.versions[alice.account.user_id])
            await new_sessions(alice, 2)
            await bob.round()
            await bob.client.replace_backup()
            await bob.client.back_up()
            assert bob.client.key_backup == KeyBackupState("2", can_restore=True)
            assert len(keys.session_ids(BOB.user_id)) == 2
            # What is ours stays.
            await bob.client.replace_backup()
            assert len(keys.versions[BOB.user_id]) == 2
            keys.set_account_data(BOB.user_id, KEY_BACKUP, {})
            keys.current(BOB.user_id).auth_data = {"public_key": public_key(OTHER_KEY)}
            with pytest.raises(ConfigurationError, match="not in secret storage"):
                await bob.client.replace_backup()

    asyncio.run(scenario())


def test_a_backup_that_no_client_of_ours_can_use_is_replaced(memory_url: str) -> None:
    async def scenario() -> None:
        async with backed_up(memory_url) as (keys, _alice, bob):
            await bob.client.back_up()
            keys.current(BOB.user_id).auth_data = {"public_key": "none"}
            await bob.client.replace_backup()
            assert bob.client.key_backup == KeyBackupState("2", can_restore=True)

    asyncio.run(scenario())


def test_an_answer_that_makes_no_sense_ends_neither_the_syncs_nor_in_silence(memory_url: str) -> None:
    async def scenario() -> None:
        async with backed_up(memory_url) as (keys, alice, bob):
            await new_sessions(alice, 1)
            bob.client._trust.key_backup._versions.find = nonsense  # type: ignore[method-assign]
            await bob.round()
            await until(lambda: "ZeroDivisionError" in bob.client.key_backup.problem)
            await bob.round()
            assert len(bob.read) == 1
            assert keys.put == []

    async def nonsense() -> Any:
        raise ZeroDivisionError

    asyncio.run(scenario())


def test_a_new_key_of_the_backup_in_secret_storage_makes_the_client_look(memory_url: str) -> None:
    async def scenario() -> None:
        async with backed_up(memory_url) as (keys, _alice, bob):
            await bob.client.back_up()
            await bob.round()
            asked = len(keys.server.asked("room_keys/version"))
            event = {"type": KEY_BACKUP, "content": {"encrypted": {"key": {}}}}
            keys.server.sync_answers.append(lambda _device, _after: {"account_data": {"events": [event]}})
            bob.client.next_batch = "0"
            await bob.round()
            await until(lambda: len(keys.server.asked("room_keys/version")) > asked)

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
            await until(lambda: any(map(is_upload, keys.server.requests)))
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
            await new_sessions(alice, 1)
            await bob.round()
            refusal = {"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 50}
            answers = [web.json_response(refusal, status=429) for _ in range(2)]
            keys.server.faults.append(lambda request: answers.pop() if is_upload(request) and answers else None)
            await bob.client.back_up()
            assert (len(keys.put), len([each for each in keys.server.requests if is_upload(each)])) == (1, 3)

    asyncio.run(scenario())


def alice_sessions(alice: Person) -> set[str]:
    return {row.session_id for row in alice.stored(InboundGroupSession)}


def test_a_backup_that_the_identity_has_signed_is_used_without_its_private_key(memory_url: str) -> None:
    async def scenario() -> None:
        async with backed_up(memory_url) as (keys, alice, bob):
            await bob.client.back_up()
            await alice.say("one")
            await bob.restart()
            bob.store.secrets.put(KEY_BACKUP, OTHER_KEY)
            await bob.round()
            await bob.client.back_up()
            assert bob.client.key_backup == KeyBackupState("1", can_restore=False)
            assert len(keys.put) == 1
            with pytest.raises(ConfigurationError, match="another private key"):
                await bob.client.restore_backup()

    asyncio.run(scenario())


def test_a_public_key_that_changed_under_the_version_is_found_at_the_next_start(memory_url: str) -> None:
    async def scenario() -> None:
        async with backed_up(memory_url) as (keys, alice, bob):
            await bob.client.back_up()
            keys.current(BOB.user_id).auth_data = {"public_key": public_key(OTHER_KEY)}
            await bob.restart()
            await alice.say("one")
            await bob.round()
            with pytest.raises(ConfigurationError, match="is another's"):
                await bob.client.back_up()
            assert keys.put == []
            # What comes meanwhile is not forgotten.
            assert len(bob.stored(SessionToBackUp)) == 1
            keys.current(BOB.user_id).auth_data = {"public_key": public_key(PRIVATE_KEY)}
            await bob.restart()
            await bob.client.back_up()
            assert len(keys.put) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("kind", "content", "why"),
    [
        (KEY_BACKUP, {}, "not in secret storage"),
        (KEY_BACKUP, seal(KEY_BACKUP, KEY_ID, STORAGE_KEY, OTHER_KEY), "not in secret storage"),
        (KEY_BACKUP, seal(KEY_BACKUP, "a person's", STORAGE_KEY, PRIVATE_KEY), "not in secret storage"),
        (KEY_BACKUP, seal(KEY_BACKUP, KEY_ID, OTHER_KEY, PRIVATE_KEY), "not in secret storage"),
        ("m.key_backup", {"enabled": False}, "turned key backup off"),
    ],
)
def test_no_backup_is_made_that_nobody_could_restore_or_wants(
    memory_url: str, kind: str, content: Any, why: str
) -> None:
    async def scenario() -> None:
        async with backed_up(memory_url) as (keys, _alice, bob):
            keys.set_account_data(BOB.user_id, kind, content)
            with pytest.raises(ConfigurationError, match=why):
                await bob.client.back_up()
            assert not keys.versions[BOB.user_id]

    asyncio.run(scenario())


def test_a_homeserver_without_key_backup_is_named(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            server.extensions.append(
                lambda _device, request: (
                    web.json_response({"errcode": "M_UNRECOGNIZED"}, status=404)
                    if request.is_for("room_keys")
                    else None
                )
            )
            bob.store.secrets.put(KEY_BACKUP, PRIVATE_KEY)
            await bob.round()
            with pytest.raises(ConfigurationError, match="M_UNRECOGNIZED"):
                await bob.client.back_up()

    asyncio.run(scenario())


def test_a_request_that_is_too_large_is_made_smaller(memory_url: str) -> None:
    async def scenario() -> None:
        async with backed_up(memory_url) as (keys, alice, bob):
            await new_sessions(alice, 10)
            await bob.round()

            def fault(request: Request) -> web.StreamResponse | None:
                large = is_upload(request) and len(request.body["rooms"][ROOM]["sessions"]) > 4
                return web.json_response({"errcode": "M_TOO_LARGE"}, status=413) if large else None

            keys.server.faults.append(fault)
            await bob.client.back_up()
            assert len(keys.put) == len(keys.session_ids(BOB.user_id)) == 10

    asyncio.run(scenario())


def test_two_hosts_that_make_a_backup_at_once_use_the_same(memory_url: str) -> None:
    async def scenario() -> None:
        async with backed_up(memory_url) as (keys, _alice, bob):
            answer = keys._answer_about_version

            def twice(method: str, user: str, number: list[str], body: Any) -> web.StreamResponse:
                if method == "POST":
                    answer(method, user, number, body)
                return answer(method, user, number, body)

            keys._answer_about_version = twice  # type: ignore[method-assign]  # the other host is a moment earlier
            await bob.client.back_up()
            assert bob.client.key_backup.version == "2"

    asyncio.run(scenario())


def test_closing_lets_a_request_end_and_notes_it(url: str) -> None:
    async def scenario() -> None:
        async with backed_up(url) as (keys, alice, bob):
            await new_sessions(alice, 2)
            await bob.round()
            await until(lambda: any(map(is_upload, keys.server.requests)))
            await bob.client.close()
            assert bob.client._trust.key_backup._task is None
            count = len(keys.put)
            await bob.restart()
            await bob.round()
            await bob.client.back_up()
            assert (count, len(keys.put)) == (2, 2)

    asyncio.run(scenario())
