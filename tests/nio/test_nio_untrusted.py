"""What strangers on the network send: an offending record is dropped and reported, and holds nothing up."""

from __future__ import annotations

import pytest
from nio.crypto import OlmDevice
from nio.crypto import OutgoingKeyRequest as KeyRequest

from cryptostore import Device, EncryptedRoom, InboundGroupSession, OutgoingKeyRequest, SyncToken
from cryptostore.nio import bounds
from nio_places import ROOM, Ours, Ratchet

BOB = "@bob:example.org"
UNSTORABLE = {"NUL": "!a\0b:example.org", "9 kB": "!" + "x" * 9_000, "surrogate": "!\ud800:example.org", "empty": ""}

unstorable = pytest.mark.parametrize("bad", list(UNSTORABLE.values()), ids=list(UNSTORABLE))


def dropped(caplog: pytest.LogCaptureFixture, bad: str) -> int:
    for record in caplog.records:
        assert not bad or bad not in record.getMessage()
    return sum("dropped" in record.getMessage() for record in caplog.records)


@unstorable
def test_a_room_key_for_an_impossible_room(ours: Ours, bad: str, caplog: pytest.LogCaptureFixture) -> None:
    store, ratchet = ours.open(), Ratchet(room=bad)
    session = ratchet.inbound()
    store.load_inbound_group_sessions().add(session)
    store.save_inbound_group_session(session)
    store.save_inbound_group_session(Ratchet().inbound())
    assert dropped(caplog, bad) == 1
    assert [row.room_id for row in ours.stored(InboundGroupSession)] == [ROOM]
    assert not store._group_sessions._sessions.pinned()
    assert ours.reopen(store).load_inbound_group_sessions().get(bad, bad, bad) is None


@unstorable
def test_an_impossible_room_stays_encrypted(ours: Ours, bad: str) -> None:
    store = ours.open()
    for _ in range(2):
        store.save_sync_token("s1")
        store.save_encrypted_rooms({bad, ROOM})
        assert len(ours.stored(EncryptedRoom)) == 2
    assert ours.stored(SyncToken) == [SyncToken("s1")]
    store = ours.reopen(store)
    rooms = store.load_encrypted_rooms()
    assert bad in rooms
    assert ROOM in rooms
    assert not any(other in rooms for other in (f"{bad}x", f"{ROOM}x"))
    rooms.discard(bad)
    assert rooms == {ROOM}
    store.delete_encrypted_room(bad)
    assert ours.reopen(store).load_encrypted_rooms() == {ROOM}


TOKENS = ["s\0" + "1", "s\ud800", "", "\0", "cryptostore escaped", 'cryptostore escaped "s1"']


@pytest.mark.parametrize("token", TOKENS, ids=ascii)
def test_a_sync_token_is_any_text(ours: Ours, token: str) -> None:
    store = ours.open()
    store.save_sync_token(token)
    store.save_encrypted_rooms(set())
    assert ours.reopen(store).load_sync_token() == token


def test_before_a_sync_token_that_is_too_long_the_place_stays(in_memory: Ours) -> None:
    store = in_memory.open()
    for token in ("s1", "x" * (bounds.TOKEN + 1)):
        store.save_sync_token(token)
        store.save_encrypted_rooms(set())
    assert in_memory.reopen(store).load_sync_token() == "s1"


@unstorable
def test_a_device_with_an_impossible_id(ours: Ours, bad: str, caplog: pytest.LogCaptureFixture) -> None:
    store = ours.open()
    devices = store.load_device_keys()
    keys = {"ed25519": "ed", "curve25519": "curve"}
    for device in (OlmDevice(BOB, bad, keys), OlmDevice(BOB, "GOOD", dict(keys)), OlmDevice(bad, "DEVICE", dict(keys))):
        devices.add(device)
    # nio looks every device up again after adding it.
    store.save_device_keys({BOB: dict(devices[BOB]), bad: {"DEVICE": devices[bad]["DEVICE"]}})
    assert dropped(caplog, bad) == 2
    for device in (devices[BOB][bad], devices[bad]["DEVICE"]):
        # What the owner decides about it cannot be stored, and would be forgotten.
        assert not store.verify_device(device)
        assert store.is_device_blacklisted(device)
    assert [row.key for row in ours.stored(Device)] == [(BOB, "GOOD")]
    assert not store._devices._users.pinned()
    assert list(ours.reopen(store).load_device_keys()[bad]) == []


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("a\0b", "a\ufffdb"),
        ("a\ud800b", "a\ufffdb"),
        (None, ""),
        (7, ""),
        ("é\U0001d56c", "é\U0001d56c"),
        ("é" * 1_000_000, "é" * 256),
    ],
    ids=["NUL", "surrogate", "none", "number", "other planes", "1 MB"],
)
def test_display_names_are_cleaned(ours: Ours, sent: object, kept: str) -> None:
    store = ours.open()
    device = OlmDevice(BOB, "DEVICE", {"ed25519": "ed"}, display_name=sent)  # type: ignore[arg-type]  # any JSON
    store.save_device_keys({BOB: {"DEVICE": device}})
    assert ours.reopen(store).load_device_keys()[BOB]["DEVICE"].display_name == kept


@unstorable
def test_looking_up_what_cannot_be_there(ours: Ours, bad: str) -> None:
    store = ours.open()
    assert store.load_sessions().get(bad) is None
    assert store.load_inbound_group_sessions().get(ROOM, bad, bad) is None
    assert store.load_inbound_group_sessions()[bad] == {}
    assert store.load_device_keys()[bad] == {}
    assert not store.is_device_verified(OlmDevice(bad, bad, {}))


@unstorable
def test_an_impossible_key_request(ours: Ours, bad: str, caplog: pytest.LogCaptureFixture) -> None:
    store = ours.open()
    good, impossible = KeyRequest("request", "session", ROOM, "megolm"), KeyRequest(bad, "session", ROOM, "megolm")
    for request in (good, impossible):
        store.add_outgoing_key_request(request)
    assert dropped(caplog, bad) == 1
    assert ours.reopen(store).load_outgoing_key_requests() == {"request": good}
    store = ours.open()
    for request in (good, impossible):
        store.remove_outgoing_key_request(request)
    assert ours.stored(OutgoingKeyRequest) == []


def test_a_rooms_settings_are_never_overwritten_with_nothing(ours: Ours) -> None:
    settings: dict[str, str | int | bool | None] = {"algorithm": "m.megolm.v1.aes-sha2", "rotation_period_msgs": 100}
    ours.put(EncryptedRoom(ROOM, settings))
    store = ours.open()
    store.save_encrypted_rooms({ROOM, f"{ROOM}x"})
    store = ours.reopen(store)
    assert store.load_encrypted_rooms() == {ROOM, f"{ROOM}x"}
    store.save_encrypted_rooms({ROOM})
    assert {row.room_id: dict(row.settings) for row in ours.stored(EncryptedRoom)} == {ROOM: settings, f"{ROOM}x": {}}


def test_a_forgotten_room_can_be_saved_again(in_memory: Ours) -> None:
    store = in_memory.open()
    store.save_encrypted_rooms({ROOM})
    store.delete_encrypted_room(ROOM)
    assert in_memory.stored(EncryptedRoom) == []
    store.save_encrypted_rooms({ROOM})
    assert in_memory.stored(EncryptedRoom) == [EncryptedRoom(ROOM)]
