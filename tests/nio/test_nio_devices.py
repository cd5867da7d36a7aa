"""Devices as programs save them and decide about them: whole containers, and objects of their own."""

from __future__ import annotations

from contextlib import closing

import pytest
from nio.crypto import DeviceStore, OlmAccount, OlmDevice, TrustState

from cryptostore import Device, Row
from cryptostore.nio import NioStore
from cryptostore.nio.client.looking import look_no_further
from cryptostore.nio.client.statistics import Statistics
from cryptostore.nio.client.store import ProductionStore
from cryptostore.records.fields import DeviceTrust
from cryptostore.store.account_keys import AccountKeys
from cryptostore_contract.samples import ALICE, BOB, KEY
from nio_accounts import device, save
from nio_places import Counted, Ours

DECISIONS = {
    "verified": (NioStore.verify_device, NioStore.unverify_device),
    "blacklisted": (NioStore.blacklist_device, NioStore.unblacklist_device),
    "ignored": (NioStore.ignore_device, NioStore.unignore_device),
}

decisions = pytest.mark.parametrize("decision", DECISIONS)


def test_the_containers_of_a_client_are_saved_whole(ours: Ours) -> None:
    theirs = DeviceStore()
    theirs.add(device(1))
    theirs.add(OlmDevice(ALICE.user_id, "LAPTOP", {"ed25519": "ed", "curve25519": "curve"}))
    store = ours.open()
    store.save_device_keys(theirs)
    assert [row.key for row in ours.stored(Device)] == [(ALICE.user_id, "LAPTOP"), (BOB.user_id, "DEVICE1")]


def test_what_was_changed_in_the_stores_own_container_is_saved_with_it(ours: Ours, counted: Counted) -> None:
    store = ours.open()
    save(store, device(1), device(2))
    store = ours.reopen(store)
    devices = store.load_device_keys()
    devices[BOB.user_id]["DEVICE1"].deleted = True
    devices.add(device(3))
    counted.batches.clear()
    store.save_device_keys(devices)
    (batch,) = counted.batches
    assert [row.key for row in batch.puts(Device)] == [(BOB.user_id, "DEVICE1"), (BOB.user_id, "DEVICE3")]
    assert [row.deleted for row in ours.stored(Device)] == [True, False, False]


def stored_trust(place: Ours) -> list[DeviceTrust]:
    return [row.trust for row in place.stored(Device)]


@decisions
def test_a_decision_that_is_stored_already_shows_on_the_object_that_was_given(in_memory: Ours, decision: str) -> None:
    decide, undo = DECISIONS[decision]
    store = in_memory.open()
    assert decide(store, device())
    store = in_memory.reopen(store)
    another = device()
    assert not decide(store, another)
    assert another.trust_state is TrustState[decision]
    assert undo(store, device())
    assert not undo(store, another)
    assert another.trust_state is TrustState.unset


@decisions
def test_a_decision_shows_on_the_device_that_the_client_goes_by(in_memory: Ours, decision: str) -> None:
    decide, _ = DECISIONS[decision]
    store = in_memory.open()
    decide(store, device())
    # A program may add an object of its own for a device that is known, and then decide again.
    live = device()
    store.load_device_keys().add(live)
    assert live.trust_state is TrustState.unset
    assert not decide(store, device())
    assert live.trust_state is TrustState[decision]


def test_many_ignored_devices_show_it_all(in_memory: Ours) -> None:
    store = in_memory.open()
    store.ignore_devices([device(1)])
    given = [device(1), device(2)]
    store.ignore_devices(given)
    assert [each.trust_state for each in given] == [TrustState.ignored] * 2
    assert stored_trust(in_memory) == [DeviceTrust.IGNORED] * 2


def test_a_device_under_another_key_does_not_look_trusted(in_memory: Ours) -> None:
    store = in_memory.open()
    store.verify_device(device())
    stranger = device(keys={"ed25519": "another", "curve25519": "curve1"}, trust_state=TrustState.verified)
    assert not store.verify_device(stranger)
    assert stranger.trust_state is TrustState.unset
    assert store.is_device_verified(device())


@pytest.fixture
def unreadable(ours: Ours) -> NioStore:
    """A store in which the row of Bob's device is damaged."""
    store = ours.open()
    save(store, device())
    ours.spoil(Device)
    return ours.reopen(store)


def test_a_device_that_cannot_be_read_looks_blacklisted_after_it_was_unverified(unreadable: NioStore) -> None:
    given = device(trust_state=TrustState.verified)
    assert not unreadable.unverify_device(given)
    assert given.trust_state is TrustState.blacklisted


def test_going_through_all_devices_opens_each_row_once(ours: Ours, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ours.open()
    save(store, *map(device, range(10)))
    store = ours.reopen(store)
    opened, count = [], AccountKeys.open

    def counted(self: AccountKeys, row: Row) -> bytes:
        opened.append(row.key)
        return count(self, row)

    monkeypatch.setattr(AccountKeys, "open", counted)
    assert len(list(store.load_device_keys())) == 10
    assert len(opened) == len(set(opened)) == 10


def test_a_user_of_whom_no_device_can_be_read_is_one_of_whom_devices_are_known(unreadable: NioStore) -> None:
    devices = unreadable.load_device_keys()
    assert list(devices.users) == [BOB.user_id]
    assert list(devices) == []


def test_a_user_with_new_devices_that_wait_for_a_flush_comes_once(memory_url: str) -> None:
    with closing(NioStore(ALICE.user_id, ALICE.device_id, memory_url, KEY)) as stock:
        stock.save_account(OlmAccount())
        save(stock, device(1))
        carol = OlmDevice("@carol:example.org", "PHONE", device().keys)
        stock.save_device_keys({carol.user_id: {carol.id: carol}})
    with closing(ProductionStore(ALICE, memory_url, KEY, Statistics(), look_no_further)) as store:
        save(store, device(2))
        devices = store.load_device_keys()
        assert list(devices.users) == [BOB.user_id, carol.user_id]
        assert [each.id for each in devices] == ["DEVICE1", "DEVICE2", "PHONE"]
