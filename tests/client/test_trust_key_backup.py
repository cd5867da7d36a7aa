"""Which backup on the server is the account's: made, found, refused and replaced."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from backed_up import (
    KEY_ID,
    OTHER_KEY,
    PRIVATE_KEY,
    SEED,
    STORAGE_KEY,
    backed_up,
    give_key,
    hear_new_sessions,
    new_sessions,
    until,
)
from client_pairs import BOB, ROOM, Person, people
from cryptostore import (
    ConfigurationError,
    InboundGroupSession,
    SessionToBackUp,
)
from cryptostore.nio.trust import backup_uploads
from cryptostore.nio.trust.key_backup import KeyBackupState
from cryptostore.trust import signatures
from cryptostore.trust.key_backup import KEY_BACKUP, BackupDecryption, BackupVersion, public_key
from cryptostore.trust.secret_storage import seal
from small_room_keys import RoomKeys


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
            await hear_new_sessions(alice, bob, 1)
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


def test_a_new_version_gets_everything(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cryptostore.nio.trust.key_backup._FIRST_PAUSE", 0.01)

    async def scenario() -> None:
        async with backed_up(url) as (keys, alice, bob):
            await hear_new_sessions(alice, bob, 2)
            await bob.client.back_up()
            keys.make_another(BOB.user_id)
            await hear_new_sessions(alice, bob, 1)
            await until(lambda: len(keys.current(BOB.user_id).entries[ROOM]) == 3)
            assert bob.client.key_backup.version == "2"

    asyncio.run(scenario())


async def put_alices_in_place(keys: RoomKeys, alice: Person) -> None:
    """The homeserver shows Bob a backup of Alice's as his own."""
    give_key(keys, alice, OTHER_KEY, seed=OTHER_KEY)
    await alice.client.back_up()
    keys.versions[BOB.user_id] = list(keys.versions[alice.account.user_id])


def test_a_backup_of_another_is_not_used(memory_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with backed_up(memory_url) as (keys, alice, bob):
            await put_alices_in_place(keys, alice)
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
            await put_alices_in_place(keys, alice)
            await hear_new_sessions(alice, bob, 2)
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
