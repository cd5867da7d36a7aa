"""One RocksDB database with any number of accounts: the interface, method by method.

An account's row is under `o` and its id, its records are under `r`, its id and their keys, and under `a` and the
account's name is the key of its row.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from rocksdict import Rdict, WriteBatch

from cryptostore import AccountRow, Batch, Database, Health, Range, Row, Schema, TakeOver, UnreadableRecord

from . import schema
from .engine import release, rows, shared


class RocksDBDatabase(Database):
    """A handle on a database, which it shares with the other handles of this process."""

    def __init__(self, path: Path, timeout: float) -> None:
        self._engine = shared(path, timeout)

    def take_over(self, user_id: str, device_id: str, claim: TakeOver, timeout: float) -> AccountRow:
        with self._engine.using(timeout) as rdict:
            row = claim.row_after(_find(rdict, user_id, device_id), user_id, device_id)
            writes = WriteBatch(raw_mode=True)
            writes.put(_name_key(user_id, device_id), _account_key(row.id))
            return self._write(writes, row)

    def find(self, user_id: str, device_id: str, timeout: float) -> AccountRow | None:
        with self._engine.using(timeout) as rdict:
            return _find(rdict, user_id, device_id)

    def accounts(self, timeout: float) -> list[AccountRow]:
        with self._engine.using(timeout) as rdict:
            return [_decoded(value) for _, value in rows(rdict, b"o", b"p")]

    def delete(self, account_id: int, timeout: float) -> None:
        with self._engine.using(timeout) as rdict:
            row = _row(rdict, _account_key(account_id))
            if row is not None:
                writes = WriteBatch(raw_mode=True)
                writes.delete_range(_record_key(account_id), _record_key(account_id + 1))
                writes.delete(_name_key(row.user_id, row.device_id))
                writes.delete(_account_key(account_id))
                self._engine.write(writes, _account_key(account_id), None)

    def get(self, account_id: int, keys: Sequence[bytes], timeout: float) -> list[Row]:
        with self._engine.using(timeout) as rdict:
            found = [(key, rdict.get(_record_key(account_id, key))) for key in keys]
        return [Row(key, value) for key, value in found if value is not None]

    def ranges(self, account_id: int, ranges: Sequence[Range], timeout: float) -> list[Row]:
        with self._engine.using(timeout) as rdict:
            return [row for each in ranges for row in _within(rdict, account_id, each)]

    def page(self, account_id: int, within: Range, size: int, timeout: float) -> list[Row]:
        with self._engine.using(timeout) as rdict:
            return _within(rdict, account_id, within, size)

    def commit(self, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        with self._engine.using(timeout) as rdict:
            found = _row(rdict, _account_key(account_id))
            if found is None or not batch.follows(found):
                return found
            writes = WriteBatch(raw_mode=True)
            for key, value in batch.puts:
                writes.put(_record_key(account_id, key), value)
            for key in batch.deletes:
                writes.delete(_record_key(account_id, key))
            return self._write(writes, batch.row_after(found))

    def health(self, timeout: float) -> Health:
        with self._engine.using(timeout) as rdict:
            writable = not rdict.property_int_value("rocksdb.is-write-stopped")
        return Health(f"RocksDB in rocksdict {metadata.version('rocksdict')}", writable)

    def schema(self, timeout: float) -> Schema:  # noqa: ARG002  # a folder is read without waiting
        return schema.read(self._engine.path)

    def close(self) -> None:
        release(self._engine)

    def _write(self, writes: WriteBatch, row: AccountRow) -> AccountRow:
        key, value = _account_key(row.id), json.dumps(row).encode()
        writes.put(key, value)
        self._engine.write(writes, key, value)
        return row


def _find(rdict: Rdict, user_id: str, device_id: str) -> AccountRow | None:
    account_key = rdict.get(_name_key(user_id, device_id))
    return None if account_key is None else _row(rdict, account_key)


def _row(rdict: Rdict, account_key: bytes) -> AccountRow | None:
    value = rdict.get(account_key)
    return None if value is None else _decoded(value)


def _decoded(value: bytes) -> AccountRow:
    try:
        return AccountRow(*json.loads(value))
    except (ValueError, TypeError):
        # Taken for absent, the account would be made again.
        raise UnreadableRecord(
            "an account's row is damaged in the database and was left as it is; restore it from a backup"
        ) from None


def _within(rdict: Rdict, account_id: int, within: Range, limit: int | None = None) -> list[Row]:
    start = _record_key(account_id)
    end = _record_key(account_id + 1) if within.end is None else start + within.end
    return [Row(key[len(start) :], value) for key, value in rows(rdict, start + within.start, end, limit)]


def _name_key(user_id: str, device_id: str) -> bytes:
    # Ids of users and devices hold no NUL.
    return f"a{user_id}\0{device_id}".encode()


def _account_key(account_id: int) -> bytes:
    return b"o%016x" % account_id


def _record_key(account_id: int, key: bytes = b"") -> bytes:
    return b"r%016x" % account_id + key
