"""Rows that cannot be read any more: what their absence would permit is refused, and they stay as they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from nio.crypto import OlmDevice, TrustState

from cryptostore import ConfigurationError, UnreadableRecord, records
from cryptostore.nio import NioStore
from cryptostore.nio.wholeness import UNFINISHED_IMPORT
from cryptostore_contract.samples import BOB
from nio_accounts import device, save, with_account
from nio_places import ROOM, Ours


def test_a_sync_token_is_never_taken_for_none(ours: Ours) -> None:
    store = with_account(ours)
    store.save_sync_token("s1")
    store.save_encrypted_rooms({ROOM})
    ours.close(store)
    (damaged,) = ours.spoil(records.SyncToken)
    with pytest.raises(UnreadableRecord, match="the sync_token of"):
        ours.open()
    assert ours.rows(records.SyncToken) == [damaged]


def test_a_room_stays_encrypted(ours: Ours) -> None:
    store = with_account(ours)
    store.save_encrypted_rooms({ROOM, "!other:example.org"})
    ours.close(store)
    damaged = ours.spoil(records.EncryptedRoom)
    store = ours.open()
    # nio saves rooms that it learned of before it asked which are known.
    store.save_encrypted_rooms({ROOM, "!new:example.org"})
    assert store.load_encrypted_rooms() == {ROOM, "!other:example.org", "!new:example.org"}
    store.save_encrypted_rooms({ROOM, "!other:example.org"})
    assert set(damaged) < set(ours.rows(records.EncryptedRoom))
    assert len(ours.rows(records.EncryptedRoom)) == 3


def a_key_query_brings(store: NioStore, found: OlmDevice) -> OlmDevice:
    """What nio's Olm does with a device that it does not know."""
    devices = store.load_device_keys()
    if found.id not in devices[found.user_id]:
        devices.add(found)
    save(store, devices[found.user_id][found.id])
    return devices[found.user_id][found.id]


def with_a_damaged_device(ours: Ours) -> NioStore:
    """A store that knows two devices of Bob's; the row of the blacklisted one is damaged."""
    store = with_account(ours)
    save(store, device(1), device(2))
    store.blacklist_device(device(1))
    store.verify_device(device(2))
    ours.close(store)
    first, _ = ours.rows(records.Device)
    ours.put_rows(first._replace(value=first.value[::-1]))
    return ours.open()


def test_a_blacklisted_device_gets_no_keys_and_is_not_accepted_anew(ours: Ours) -> None:
    store = with_a_damaged_device(ours)
    stored = ours.rows(records.Device)
    for _ in range(2):
        devices = store.load_device_keys()
        assert [each.id for each in devices.active_user_devices(BOB.user_id)] == ["DEVICE2"]
        assert store.is_device_blacklisted(device(1))
        assert store.is_device_verified(device(2))
        for _ in range(2):
            known = a_key_query_brings(store, device(1, display_name="renamed"))
            assert known.trust_state is TrustState.blacklisted
            assert store.is_device_blacklisted(known)
            assert not store.is_device_verified(known)
            assert not store.is_device_ignored(known)
        assert ours.rows(records.Device) == stored
        store = ours.reopen(store)


@pytest.mark.parametrize(
    ("decide", "trust"),
    [
        (NioStore.verify_device, TrustState.verified),
        (NioStore.blacklist_device, TrustState.blacklisted),
        (NioStore.unblacklist_device, TrustState.unset),
        (NioStore.ignore_device, TrustState.ignored),
    ],
)
def test_the_owner_decides_about_it(
    in_memory: Ours, decide: Callable[[NioStore, OlmDevice], bool], trust: TrustState
) -> None:
    store = with_a_damaged_device(in_memory)
    known = a_key_query_brings(store, device(1))
    assert decide(store, known)
    assert known.trust_state is trust
    (row, _) = in_memory.stored(records.Device)
    assert (row.device_id, row.trust.value, dict(row.keys)) == ("DEVICE1", trust.name, device(1).keys)
    store = in_memory.reopen(store)
    assert store.load_device_keys()[BOB.user_id]["DEVICE1"].trust_state is trust
    save(store, device(1, display_name="renamed"))
    assert store.load_device_keys()[BOB.user_id]["DEVICE1"].trust_state is trust


def test_what_is_not_a_decision_leaves_it_as_it_is(in_memory: Ours) -> None:
    store = with_a_damaged_device(in_memory)
    known = a_key_query_brings(store, device(1))
    assert not store.unverify_device(known)
    assert not store.unignore_device(known)
    assert store.is_device_blacklisted(known)


def test_a_damaged_device_hides_no_other(in_memory: Ours) -> None:
    store = with_a_damaged_device(in_memory)
    a_key_query_brings(store, device(3))
    assert not store.is_device_blacklisted(device(3))
    assert [each.device_id for each in in_memory.stored(records.Device)] == ["DEVICE2", "DEVICE3"]


def test_the_mark_of_an_interrupted_import_holds(ours: Ours) -> None:
    ours.put(UNFINISHED_IMPORT)
    ours.spoil(records.Value)
    with pytest.raises(ConfigurationError, match=r"an import of .* was interrupted"):
        ours.open()
