"""The containers that nio is given: as nio uses its own, with one live object for each key."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from nio.crypto import DeviceStore, OlmDevice, SessionStore, TrustState

from cryptostore import Device, DeviceTrust
from cryptostore.nio import NioStore
from cryptostore.nio.cache import LiveCache, Recent
from cryptostore_contract import samples
from nio_accounts import device, save
from nio_places import ROOM, Ours, Ratchet, olm_session

BOB = samples.BOB.user_id


def add_and_save(store: NioStore, *devices: OlmDevice) -> None:
    for each in devices:
        store.load_device_keys().add(each)
    save(store, *devices)


def forget_everything(store: NioStore) -> None:
    """What a long time and many other keys do: nothing is held by the cache itself any more."""
    _forget(store._sessions._senders)
    _forget(store._group_sessions._sessions)
    _forget(store._devices._users)
    gc.collect()


def _forget(cache: LiveCache[Any, Any]) -> None:
    while cache._recent:
        cache._recent.popitem()
    cache._recent = Recent(1, cache._alive)
    cache._absent.clear()


# Olm sessions


def test_olm_sessions_come_last_used_first(ours: Ours) -> None:
    store = ours.open()
    first, second, third = (olm_session() for _ in range(3))
    for session in (first, second, third):
        assert store.load_sessions().add("curve", session)
        assert not store.load_sessions().add("curve", session)
        store.save_session("curve", session)
    second.encrypt("a message")
    store.save_session("curve", second)
    assert store.load_sessions()["curve"] == [second, third, first]
    assert store.load_sessions().get("curve") is second
    store = ours.reopen(store)
    assert [session.id for session in store.load_sessions()["curve"]] == [second.id, third.id, first.id]
    assert [session.use_time for session in store.load_sessions()["curve"]] == [
        session.use_time for session in (second, third, first)
    ]


def test_a_session_that_was_tried_in_vain_is_not_preferred(in_memory: Ours) -> None:
    store = in_memory.open()
    older, newer = olm_session(), olm_session()
    for session in (older, newer):
        store.load_sessions().add("curve", session)
        store.save_session("curve", session)
    # What Session.decrypt does before it fails.
    older.use_time = newer.use_time + timedelta(hours=1)
    assert store.load_sessions().get("curve") is newer


def test_an_olm_session_that_somebody_holds_is_the_only_one(in_memory: Ours) -> None:
    store = in_memory.open()
    held, other = olm_session(), olm_session()
    for session in (held, other):
        store.load_sessions().add("curve", session)
        store.save_session("curve", session)
    other_id, other = other.id, None  # type: ignore[assignment]  # nobody holds that one
    del session
    forget_everything(store)
    found = store.load_sessions()["curve"]
    assert held in found
    assert [session.id for session in found if session is not held] == [other_id]


def test_what_is_not_saved_yet_is_not_forgotten(in_memory: Ours) -> None:
    store = in_memory.open()
    session, ratchet = olm_session(), Ratchet()
    store.load_sessions().add("curve", session)
    store.load_inbound_group_sessions().add(ratchet.inbound())
    store.load_device_keys().add(device())
    session_id = session.id
    del session
    for _ in range(2):
        forget_everything(store)
        assert [each.id for each in store.load_sessions()] == [session_id]
        assert [each.id for each in store.load_inbound_group_sessions()] == [ratchet.id]
        assert ratchet.found_in(store) is not None
        assert [each.id for each in store.load_device_keys()] == ["DEVICE1"]


def test_what_is_stored_and_changed_since_is_met_once(in_memory: Ours) -> None:
    store = in_memory.open()
    ratchet = Ratchet()
    better = ratchet.inbound()
    store.save_inbound_group_session(ratchet.advance(1).inbound())
    store.save_session("curve", olm_session())
    add_and_save(store, device(1))
    store.load_inbound_group_sessions().add(better)
    store.load_sessions().add("curve", olm_session())
    store.load_device_keys().add(device(2))
    assert list(store.load_inbound_group_sessions()) == [better]
    assert list(store.load_inbound_group_sessions()[ROOM]["curve-of-sender"].values()) == [better]
    assert [len(sessions) for sessions in store.load_sessions().values()] == [2]
    assert [each.id for each in store.load_device_keys()] == ["DEVICE1", "DEVICE2"]


def test_what_is_saved_is_forgotten_and_read_again(in_memory: Ours) -> None:
    store, ratchet = in_memory.open(), Ratchet()
    store.save_session("curve", olm_session())
    store.save_inbound_group_session(ratchet.inbound())
    add_and_save(store, device())
    forget_everything(store)
    for cache in (store._sessions._senders, store._group_sessions._sessions, store._devices._users):
        assert not cache.pinned()
        assert not cache._alive
    assert len(list(store.load_sessions())) == len(list(store.load_device_keys())) == 1
    assert ratchet.found_in(store) is not None


def test_the_views_of_olm_sessions(in_memory: Ours) -> None:
    store = in_memory.open()
    sessions = {f"curve{number}": olm_session() for number in range(3)}
    for sender_key, session in sessions.items():
        store.save_session(sender_key, session)
    store = in_memory.reopen(store)
    found = store.load_sessions()
    assert isinstance(found, SessionStore)
    assert {key: [each.id for each in value] for key, value in found.items()} == {
        key: [session.id] for key, session in sessions.items()
    }
    assert len(found.values()) == 3
    assert found.get("unknown") is None
    assert found["unknown"] == []


# Inbound Megolm sessions


def test_a_rooms_sessions_by_sender(ours: Ours) -> None:
    store = ours.open()
    here, there = [Ratchet("curve1"), Ratchet("curve1"), Ratchet("curve2")], Ratchet("curve1", f"{ROOM}x")
    for ratchet in (*here, there):
        store.save_inbound_group_session(ratchet.inbound())
    unsaved = Ratchet("curve2")
    store.load_inbound_group_sessions().add(unsaved.inbound())
    room = store.load_inbound_group_sessions()[ROOM]
    assert room["curve1"].keys() == {here[0].id, here[1].id}
    assert room["curve2"].keys() == {here[2].id, unsaved.id}
    assert room["unknown"] == {}
    assert len(list(store.load_inbound_group_sessions())) == 5


def test_sessions_are_gone_through_while_they_are_written(ours: Ours) -> None:
    store = ours.open()
    ratchets = [Ratchet() for _ in range(1_500)]
    with store.batch():
        for ratchet in ratchets:
            store.save_inbound_group_session(ratchet.inbound())
    seen: list[str] = []

    def export() -> None:
        seen.extend(session.id for session in store.load_inbound_group_sessions())

    exporter = threading.Thread(target=export)
    exporter.start()
    for _ in range(50):
        store.save_inbound_group_session(Ratchet().inbound())
    exporter.join()
    assert {ratchet.id for ratchet in ratchets} <= set(seen)
    assert len(seen) == len(set(seen))


# Devices


def test_devices_as_nios_key_query_uses_them(ours: Ours) -> None:
    store = ours.open()
    devices = store.load_device_keys()
    assert isinstance(devices, DeviceStore)
    user_devices = devices[BOB]
    assert devices.add(device(1))
    assert not devices.add(device(1))
    assert devices.add(device(2))
    assert user_devices["DEVICE1"] is devices[BOB]["DEVICE1"]
    user_devices["DEVICE1"].curve25519 = "another curve"
    user_devices["DEVICE2"].deleted = True
    store.save_device_keys({BOB: dict(user_devices)})
    assert [each.id for each in devices.active_user_devices(BOB)] == ["DEVICE1"]
    devices = ours.reopen(store).load_device_keys()
    assert devices.device_from_sender_key(BOB, "another curve") == devices[BOB]["DEVICE1"]
    assert devices.device_from_sender_key(BOB, "curve2") is None
    assert set(devices.devices(BOB)) == {"DEVICE1", "DEVICE2"}
    assert list(devices.users) == [BOB]
    assert BOB in devices.users
    assert "@nobody:example.org" not in devices.users


def test_a_device_that_somebody_holds_is_the_only_one(in_memory: Ours) -> None:
    store = in_memory.open()
    held = device()
    add_and_save(store, held)
    forget_everything(store)
    assert store.load_device_keys()[BOB]["DEVICE1"] is held


def test_unchanged_devices_are_not_written_again(in_memory: Ours) -> None:
    store = in_memory.open()
    add_and_save(store, device(1), device(2))

    def batches() -> int:
        with in_memory.owned() as other:
            return other.ownership.sequence

    before = batches()
    store = in_memory.open()
    add_and_save(store, device(1), device(2))
    assert batches() == before
    store = in_memory.open()
    add_and_save(store, device(1), device(2, display_name="laptop"))
    assert batches() == before + 1


# Trust

SETTERS: dict[DeviceTrust, tuple[Callable[..., bool], Callable[..., bool], Callable[..., bool]]] = {
    DeviceTrust.VERIFIED: (NioStore.verify_device, NioStore.unverify_device, NioStore.is_device_verified),
    DeviceTrust.BLACKLISTED: (NioStore.blacklist_device, NioStore.unblacklist_device, NioStore.is_device_blacklisted),
    DeviceTrust.IGNORED: (NioStore.ignore_device, NioStore.unignore_device, NioStore.is_device_ignored),
}


@pytest.mark.parametrize("trust", SETTERS)
def test_trust_is_set_and_taken_back(ours: Ours, trust: DeviceTrust) -> None:
    decide, undo, holds = SETTERS[trust]
    others = [each for each in SETTERS if each is not trust]
    store = ours.open()
    add_and_save(store, device())
    live = store.load_device_keys()[BOB]["DEVICE1"]
    assert not undo(store, device())
    assert decide(store, device())
    assert not decide(store, device())
    assert live.trust_state is TrustState[trust.value]
    store = ours.reopen(store)
    assert holds(store, device())
    for other in others:
        assert not SETTERS[other][1](store, device())
        assert not SETTERS[other][2](store, device())
    assert undo(store, device())
    assert ours.reopen(store).load_device_keys()[BOB]["DEVICE1"].trust_state is TrustState.unset


def test_one_decision_replaces_another(in_memory: Ours) -> None:
    store = in_memory.open()
    add_and_save(store, device())
    for decide, _, holds in SETTERS.values():
        assert decide(store, device())
        assert [each[2](store, device()) for each in SETTERS.values()].count(True) == 1
        assert holds(store, device())


def test_many_devices_are_ignored(ours: Ours) -> None:
    store = ours.open()
    known, unknown = device(1), device(2)
    add_and_save(store, known)
    store.ignore_devices([known, unknown, known])
    assert known.ignored
    assert unknown.ignored
    store = ours.reopen(store)
    assert store.is_device_ignored(device(1))
    assert store.is_device_ignored(device(2))


def test_trust_stays_with_the_ed25519_key(ours: Ours) -> None:
    store = ours.open()
    add_and_save(store, device(1), device(2), device(3))
    store.verify_device(device(1))
    store.ignore_device(device(2))
    store.blacklist_device(device(3))
    # The name and the Curve25519 key change, and nothing is said about trust.
    add_and_save(
        store, *(device(n, keys={"ed25519": f"ed{n}", "curve25519": "new"}, display_name="new") for n in (1, 2, 3))
    )
    assert [row.trust.value for row in ours.stored(Device)] == ["verified", "ignored", "blacklisted"]
    replaced = [device(n, keys={"ed25519": "another", "curve25519": "new"}) for n in (1, 2, 3)]
    assert [store.is_device_verified(replaced[0]), store.is_device_ignored(replaced[1])] == [False, False]
    assert store.is_device_blacklisted(replaced[2])
    assert not store.verify_device(replaced[0])
    assert not store.ignore_device(replaced[0])
    add_and_save(store, *replaced)
    assert [row.trust.value for row in ours.stored(Device)] == ["unset", "unset", "blacklisted"]
    assert [each.trust_state.name for each in replaced] == ["unset", "unset", "blacklisted"]


def test_trust_that_is_set_on_the_object_alone_does_not_count(in_memory: Ours) -> None:
    store = in_memory.open()
    forged = device(trust_state=TrustState.verified)
    assert not store.is_device_verified(forged)
    add_and_save(store, forged)
    assert not store.is_device_verified(forged)
    assert not in_memory.reopen(store).load_device_keys()[BOB]["DEVICE1"].verified


# The cache itself


class Thing:
    """Something that can be referenced weakly."""


def test_a_row_that_was_read_before_a_save_is_not_used() -> None:
    saved = Thing()
    reads: list[str] = []

    def read(keys: list[str]) -> dict[str, str]:
        reads.append("read")
        if len(reads) == 1:
            # Another thread adds, saves and forgets the key in the meantime.
            cache.put("key", saved)
            cache.unpin("key")
            cache._recent.clear()
            cache._alive.clear()
            return {}
        return dict.fromkeys(keys, "row")

    cache: LiveCache[str, Thing] = LiveCache(read, lambda _key, _row: Thing())
    assert cache.get("key") is not None
    assert len(reads) == 2


def test_the_cache_is_bounded_and_weak_behind() -> None:
    cache: LiveCache[int, Thing] = LiveCache(lambda keys: dict.fromkeys(keys, "row"), lambda _key, _row: Thing(), 3)
    held = cache.get(0)
    for number in range(1, 10):
        cache.get(number)
    gc.collect()
    assert set(cache._alive) | set(cache._recent) == {0, 7, 8, 9}
    assert cache.get(0) is held


def test_more_absent_objects_than_the_cache_remembers_are_read_once() -> None:
    reads: list[int] = []

    def read(keys: list[int]) -> dict[int, str]:
        reads.extend(keys)
        return {}

    cache: LiveCache[int, Thing] = LiveCache(read, lambda _key, _row: Thing(), 3)
    cache.fetch([1, 2, 3])
    cache.fetch([1, 4, 5, 6, 7, 2])
    assert [cache.get(key) for key in (1, 4, 5, 6, 7, 2)] == [None] * 6
    assert reads == [1, 2, 3, 4, 5, 6, 7]


def test_threads_get_one_object() -> None:
    cache: LiveCache[str, Thing] = LiveCache(lambda keys: dict.fromkeys(keys, "row"), lambda _key, _row: Thing())
    barrier = threading.Barrier(8)
    got: list[Thing | None] = []

    def get() -> None:
        barrier.wait()
        got.append(cache.get("key"))

    threads = [threading.Thread(target=get) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, got))) == 1
