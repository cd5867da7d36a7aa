"""`NioStore` of a checkout, as a stock nio client uses it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Final

from nio.crypto import InboundGroupSession, Olm

from cryptostore.nio import NioStore
from workers.live_keys import devices, sessions
from workers.made_keys import DEVICE, PICKLE_KEY, USER
from workers.timing import Timings

#: How many sessions one batch brings while a database is filled.
_FILLED_AT_ONCE: Final = 5_000
_SAMPLE: Final = 5_000


def _opened(database: Mapping[str, str], pickle_key: str = PICKLE_KEY) -> NioStore:
    return NioStore(USER, DEVICE, database["url"], pickle_key, "keys")


def _with_account(database: Mapping[str, str], pickle_key: str = PICKLE_KEY) -> NioStore:
    store = _opened(database, pickle_key)
    Olm(USER, DEVICE, store)  # makes the Olm account
    return store


def _key(session: InboundGroupSession) -> tuple[str, str, str]:
    return session.room_id, session.sender_key, session.id


def fill(database: Mapping[str, str], count: int, pickle_key: str = PICKLE_KEY) -> dict[str, Any]:
    """Store so many sessions. Tells some of their keys."""
    store, keys = _with_account(database, pickle_key), []
    for start in range(0, count, _FILLED_AT_ONCE):
        made = sessions(min(_FILLED_AT_ONCE, count - start))
        keys += [_key(session) for session in made]
        _save(store, made)
    store.close()
    return Timings().told(keys=random.sample(keys, min(_SAMPLE, count)))


def _save(store: NioStore, made: list[InboundGroupSession]) -> None:
    with store.batch():
        for session in made:
            store.save_inbound_group_session(session)


def batch(database: Mapping[str, str], count: int) -> dict[str, Any]:
    """Room keys in one batch."""
    store, made, timings = _with_account(database), sessions(count), Timings()
    _save(store, sessions(10))
    with timings.all_of("", count):
        _save(store, made)
    store.close()
    return timings.told()


def save(database: Mapping[str, str], count: int) -> dict[str, Any]:
    """Room keys one by one: such as were not asked for, and such as are known to be absent."""
    store, timings = _with_account(database), Timings()
    for session in sessions(10):
        store.save_inbound_group_session(session)
    timings.each("", store.save_inbound_group_session, sessions(count))
    known = store.load_inbound_group_sessions()
    absent = [session for session in sessions(count) if known.get(*_key(session)) is None]
    timings.each("known to be new", store.save_inbound_group_session, absent)
    store.close()
    return timings.told()


def find(database: Mapping[str, str], keys: list[list[str]]) -> dict[str, Any]:
    """Look sessions up that are not in memory."""
    store, timings = _opened(database), Timings()
    known = store.load_inbound_group_sessions()

    def find_one(key: list[str]) -> None:
        if known.get(*key) is None:
            raise RuntimeError("a session that was stored is not found")

    warm, measured = keys[:10], keys[10:]
    for key in warm:
        find_one(key)
    timings.each("", find_one, measured)
    store.close()
    return timings.told()


def scan(database: Mapping[str, str], count: int) -> dict[str, Any]:
    """Go through all sessions, which makes live objects of them, too."""
    store, timings = _opened(database), Timings()
    with timings.all_of("as live objects", count):
        seen = sum(1 for _ in store.load_inbound_group_sessions())
    store.close()
    if seen != count:
        raise RuntimeError(f"{seen} of {count} sessions are there")
    return timings.told()


def save_devices(database: Mapping[str, str], count: int) -> dict[str, Any]:
    """New devices in one call."""
    store, made, timings = _with_account(database), devices(count), Timings()
    with timings.all_of("save"):
        store.save_device_keys(made)
    store.close()
    return timings.told()


def load_devices(database: Mapping[str, str], count: int) -> dict[str, Any]:
    """Go through all devices."""
    store, timings = _opened(database), Timings()
    with timings.all_of("load"):
        loaded = sum(1 for _ in store.load_device_keys())
    store.close()
    if loaded != count:
        raise RuntimeError(f"{loaded} of {count} devices are there")
    return timings.told()
