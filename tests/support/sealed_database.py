"""A database in memory, written with the pickle key and without it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cryptostore import (
    Account,
    Backend,
    Batch,
    Changes,
    Record,
    Row,
    TakeOver,
    new_pickle_key,
    open_backend,
)
from cryptostore.store.memory import MemoryHandle, MemoryRecords
from example_records import ALICE

KEY, OTHER_KEY = new_pickle_key(), new_pickle_key()
BOB = Account("@bob:example.org", "BOBDEVICE")


@pytest.fixture
def backend() -> Iterator[Backend]:
    """An empty database in memory."""
    with open_backend("memory://") as backend:
        yield backend


def stored(backend: Backend, account: Account) -> MemoryRecords:
    """The account's rows, as somebody finds them who can write the database."""
    assert isinstance(backend.database, MemoryHandle)
    shared = backend.database.shared
    return shared.records[shared.accounts[account.user_id, account.device_id].id]


def rows_of(backend: Backend, account: Account) -> dict[bytes, bytes]:
    """The account's values by their keys."""
    return stored(backend, account).values


def damage_count(backend: Backend, account: Account, key: bytes) -> None:
    """Flip the top bit of the count that a row's key ends with, as a medium does that fails."""
    rows = stored(backend, account)
    value = rows.values[key]
    rows.delete(key)
    rows.put(Row(key[:-8] + bytes([key[-8] ^ 0x80]) + key[-7:], value))


def plant(backend: Backend, account: Account, key: bytes, value: bytes) -> None:
    """Write a row as somebody does who has the database and no pickle key."""
    row = backend.database.find(account.user_id, account.device_id, 1)
    assert row is not None
    owned = backend.database.take_over(account.user_id, account.device_id, TakeOver(1, 2, "intruder", 3), 1)
    backend.database.commit(row.id, Batch(owned.epoch, 2, owned.sequence + 1, [Row(key, value)], []), 1)


def saved(backend: Backend, *records: Record, account: Account = ALICE) -> None:
    """Save records as an account's owner."""
    with backend.open_store(account, pickle_key=KEY) as store:
        store.apply(Changes(records))
