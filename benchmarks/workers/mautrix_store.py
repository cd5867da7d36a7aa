"""mautrix-python's `PgCryptoStore` on asyncpg: runs in an environment of its own, without cryptostore and nio."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg  # type: ignore[import-not-found, unused-ignore]  # in that environment only, as the next
import olm  # type: ignore[import-not-found, unused-ignore]
from mautrix.crypto import InboundGroupSession  # type: ignore[import-not-found, unused-ignore]
from mautrix.crypto.store import PgCryptoStore  # type: ignore[import-not-found, unused-ignore]
from mautrix.types import DeviceIdentity, TrustState  # type: ignore[import-not-found, unused-ignore]
from mautrix.util.async_db import Database  # type: ignore[import-not-found, unused-ignore]

from workers.made_keys import PICKLE_KEY, USER, device_keys, key_id, room_ids
from workers.timing import Timings

_FILLED_AT_ONCE: Final = 5_000
_SAMPLE: Final = 5_000


@asynccontextmanager
async def _opened(database: Mapping[str, str]) -> AsyncIterator[Any]:
    schema = database["schema"]
    connection = await asyncpg.connect(database["libpq"])
    await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
    await connection.close()
    options = {"server_settings": {"search_path": schema}, "min_size": 1, "max_size": 4}
    pool = Database.create(database["libpq"], upgrade_table=PgCryptoStore.upgrade_table, db_args=options)
    await pool.start()
    yield PgCryptoStore(USER, PICKLE_KEY, pool)
    await pool.stop()


def _sessions(count: int) -> list[Any]:
    numbers, rooms = random.Random(), room_ids()
    return [
        InboundGroupSession(
            olm.OutboundGroupSession().session_key, key_id(numbers), key_id(numbers), numbers.choice(rooms)
        )
        for _ in range(count)
    ]


async def _save_one(store: Any, session: Any) -> None:
    await store.put_group_session(session.room_id, session.sender_key, session.id, session)


async def _save(store: Any, sessions: Iterable[Any]) -> None:
    async with store.transaction():
        for session in sessions:
            await _save_one(store, session)


async def _each(timings: Timings, do: Callable[[Any], Awaitable[None]], things: Iterable[Any]) -> None:
    began, seconds = time.monotonic(), []
    for thing in things:
        started = time.perf_counter()
        await do(thing)
        seconds.append(time.perf_counter() - started)
    timings.seconds[""] = statistics.median(seconds)
    timings.spans[""] = (began, time.monotonic(), len(seconds))


def _run(measurement: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    return asyncio.run(measurement)


def fill(database: Mapping[str, str], count: int) -> dict[str, Any]:
    """Store so many sessions. Tells some of their keys."""
    return _run(_fill(database, count))


async def _fill(database: Mapping[str, str], count: int) -> dict[str, Any]:
    keys: list[tuple[str, str]] = []
    async with _opened(database) as store:
        for start in range(0, count, _FILLED_AT_ONCE):
            made = _sessions(min(_FILLED_AT_ONCE, count - start))
            keys += [(session.room_id, session.id) for session in made]
            await _save(store, made)
    return Timings().told(keys=random.sample(keys, min(_SAMPLE, count)))


def batch(database: Mapping[str, str], count: int) -> dict[str, Any]:
    """Room keys in one transaction."""
    return _run(_batch(database, count))


async def _batch(database: Mapping[str, str], count: int) -> dict[str, Any]:
    timings, made = Timings(), _sessions(count)
    async with _opened(database) as store:
        await _save(store, _sessions(10))
        with timings.all_of("", count):
            await _save(store, made)
    return timings.told()


def save(database: Mapping[str, str], count: int) -> dict[str, Any]:
    """Room keys one by one."""
    return _run(_save_each(database, count))


async def _save_each(database: Mapping[str, str], count: int) -> dict[str, Any]:
    timings = Timings()
    async with _opened(database) as store:
        await _save(store, _sessions(10))
        await _each(timings, lambda session: _save_one(store, session), _sessions(count))
    return timings.told()


def find(database: Mapping[str, str], keys: list[list[str]]) -> dict[str, Any]:
    """Look sessions up."""
    return _run(_find(database, keys))


async def _find(database: Mapping[str, str], keys: list[list[str]]) -> dict[str, Any]:
    timings = Timings()
    async with _opened(database) as store:

        async def find_one(key: list[str]) -> None:
            if await store.get_group_session(*key) is None:
                raise RuntimeError("a session that was stored is not found")

        for key in keys[:10]:
            await find_one(key)
        await _each(timings, find_one, keys[10:])
    return timings.told()


def _devices(count: int) -> dict[str, dict[str, Any]]:
    by_user: dict[str, dict[str, Any]] = {}
    for user_id, device_id, ed25519, curve25519 in device_keys(count):
        device = DeviceIdentity(user_id, device_id, curve25519, ed25519, TrustState.UNVERIFIED, False, "")
        by_user.setdefault(user_id, {})[device_id] = device
    return by_user


def save_devices(database: Mapping[str, str], count: int) -> dict[str, Any]:
    """New devices of many users, in one transaction."""
    return _run(_save_devices(database, count))


async def _save_devices(database: Mapping[str, str], count: int) -> dict[str, Any]:
    timings, made = Timings(), _devices(count)
    async with _opened(database) as store:
        with timings.all_of("save"):
            async with store.transaction():
                for user_id, devices in made.items():
                    await store.put_devices(user_id, devices)
    return timings.told()


def load_devices(database: Mapping[str, str], count: int) -> dict[str, Any]:
    """All devices, user by user."""
    return _run(_load_devices(database, count))


async def _load_devices(database: Mapping[str, str], count: int) -> dict[str, Any]:
    timings, users, loaded = Timings(), list(_devices(count)), 0
    async with _opened(database) as store:
        with timings.all_of("load"):
            for user_id in users:
                loaded += len(await store.get_devices(user_id))
    if loaded != count:
        raise RuntimeError(f"{loaded} of {count} devices are there")
    return timings.told()
