"""matrix-nio's own store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nio.crypto import Olm
from nio.store import SqliteStore

from workers.live_keys import devices, sessions
from workers.made_keys import DEVICE, PICKLE_KEY, USER
from workers.timing import Timings


def _opened(database: Mapping[str, str]) -> SqliteStore:
    file = Path(database["file"])
    return SqliteStore(USER, DEVICE, str(file.parent), PICKLE_KEY, file.name)


def _with_account(database: Mapping[str, str]) -> SqliteStore:
    store = _opened(database)
    Olm(USER, DEVICE, store)  # makes the Olm account
    return store


def fill(database: Mapping[str, str], count: int) -> dict[str, Any]:
    """Store so many sessions, in one transaction, which nio itself never does."""
    store = _with_account(database)
    with store.database.atomic():
        for session in sessions(count):
            store.save_inbound_group_session(session)
    store.database.close()
    return Timings().told()


def save(database: Mapping[str, str], count: int) -> dict[str, Any]:
    """Room keys one by one, as nio does."""
    store, timings = _with_account(database), Timings()
    timings.each("", store.save_inbound_group_session, sessions(count))
    store.database.close()
    return timings.told()


def scan(database: Mapping[str, str], count: int) -> dict[str, Any]:
    """Load all sessions, which makes live objects of them, too."""
    store, timings = _opened(database), Timings()
    with timings.all_of("as live objects", count):
        loaded = sum(1 for _ in store.load_inbound_group_sessions())
    store.database.close()
    if loaded != count:
        raise RuntimeError(f"{loaded} of {count} sessions are there")
    return timings.told()


def save_devices(database: Mapping[str, str], count: int) -> dict[str, Any]:
    """New devices in one call."""
    store, made, timings = _with_account(database), devices(count), Timings()
    with timings.all_of("save"):
        store.save_device_keys(made)
    store.database.close()
    return timings.told()


def load_devices(database: Mapping[str, str], count: int) -> dict[str, Any]:
    """All devices."""
    store, timings = _opened(database), Timings()
    with timings.all_of("load"):
        loaded = sum(1 for _ in store.load_device_keys())
    store.database.close()
    if loaded != count:
        raise RuntimeError(f"{loaded} of {count} devices are there")
    return timings.told()
