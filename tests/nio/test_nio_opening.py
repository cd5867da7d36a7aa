"""Opening reads the same at ten sessions and at thousands."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from nio.crypto import Olm, OlmAccount, OlmDevice

from cryptostore import Device, EncryptedRoom, InboundGroupSession, OlmSession, OutgoingKeyRequest, Record, SyncToken
from cryptostore_contract.samples import ALICE
from nio_places import ROOM, Counted, Ours, Ratchet

NOW = datetime.now(UTC)


def many(count: int) -> list[Record]:
    return [
        record
        for number in range(count)
        for record in (
            InboundGroupSession(ROOM, f"session{number}", "curve", b"pickle", "ed", (), 0, NOW),
            OlmSession(f"curve{number}", "session", b"pickle", NOW, NOW),
            Device(f"@user{number}:example.org", "DEVICE", {"ed25519": "ed", "curve25519": "curve"}),
        )
    ]


def opening(place: Ours, counted: Counted) -> list[str]:
    counted.calls.clear()
    store = place.open()
    # What AsyncClient.load_store does.
    Olm(ALICE.user_id, ALICE.device_id, store)
    store.load_encrypted_rooms()
    store.load_sync_token()
    place.close(store)
    return list(counted.calls)


def test_opening_costs_the_same_however_much_is_stored(ours: Ours, counted: Counted) -> None:
    store = ours.open()
    store.save_account(OlmAccount())
    ours.close(store)
    ours.put(*many(10))
    few = opening(ours, counted)
    ours.put(*many(3_000))
    assert opening(ours, counted) == few
    assert few == ["open_store", "select together", "select together"]


def test_what_was_read_at_the_opening_answers_once(in_memory: Ours, counted: Counted) -> None:
    in_memory.put(EncryptedRoom(ROOM), OutgoingKeyRequest("request", "session", ROOM, "algorithm"))
    store = in_memory.open()
    counted.calls.clear()
    for calls in ([], ["select outgoing_key_request", "select encrypted_room"]):
        assert store.load_outgoing_key_requests().keys() == {"request"}
        assert store.load_encrypted_rooms() == {ROOM}
        assert counted.calls == calls


def test_what_was_read_at_the_opening_is_out_of_date_after_a_save(in_memory: Ours) -> None:
    in_memory.put(EncryptedRoom(ROOM), SyncToken("s1"))
    store = in_memory.open()
    store.save_sync_token("s2")
    store.save_encrypted_rooms({"!new:example.org"})
    assert store.load_encrypted_rooms() == {ROOM, "!new:example.org"}
    assert store.load_sync_token() == "s2"


def test_each_look_up_reads_once(in_memory: Ours, counted: Counted) -> None:
    in_memory.put(*many(100))
    store = in_memory.open()
    counted.calls.clear()
    for _ in range(3):
        for known in (1, 2):
            assert f"@user{known}:example.org" in store.load_device_keys().users
        assert store.load_sessions().get("nobody's curve") is None
        assert store.load_inbound_group_sessions().get(ROOM, "curve", "unknown") is None
    assert sorted(counted.calls) == [
        "get inbound_group_session",
        "select device",
        "select device",
        "select olm_session",
    ]


def test_many_are_fetched_in_one_round_trip(in_memory: Ours, counted: Counted) -> None:
    in_memory.put(*many(100))
    store = in_memory.open()
    counted.calls.clear()
    store.load_device_keys().prefetch([f"@user{number}:example.org" for number in range(100)])
    store.load_sessions().prefetch([f"curve{number}" for number in range(100)])
    store.load_inbound_group_sessions().prefetch([(ROOM, f"session{number}", "curve") for number in range(100)])
    assert counted.calls == ["select device", "select olm_session", "get inbound_group_session"]


def test_devices_of_many_users_are_saved_with_one_look_up(in_memory: Ours, counted: Counted) -> None:
    store = in_memory.open()
    counted.calls.clear()
    users = [f"@user{number}:example.org" for number in range(20)]
    store.save_device_keys({user: {"DEVICE": OlmDevice(user, "DEVICE", {"ed25519": "ed"})} for user in users})
    assert counted.calls == ["select device", "apply"]


@pytest.mark.parametrize("count", [0, 1, 1_200])
def test_going_through_everything_needs_no_look_up_for_each(in_memory: Ours, counted: Counted, count: int) -> None:
    in_memory.put(*many(count))
    store = in_memory.open()
    counted.calls.clear()
    devices = store.load_device_keys()
    assert [device.user_id for device in devices] == sorted(f"@user{number}:example.org" for number in range(count))
    assert counted.calls.count("select device") == -(-count // 500)
    assert len(devices.users) == len(devices.items()) == len(devices.values()) == count
    assert dict(devices.items()).keys() == set(devices.users)


def test_going_through_megolm_sessions_reads_each_once_and_keeps_none(in_memory: Ours, counted: Counted) -> None:
    store = in_memory.open()
    with store.batch():
        for _ in range(50):
            store.save_inbound_group_session(Ratchet().inbound())
    store = in_memory.reopen(store)
    counted.calls.clear()
    assert len(list(store.load_inbound_group_sessions())) == 50
    assert counted.calls == ["scanned inbound_group_session"] * 50
    assert not store._group_sessions._sessions._alive
