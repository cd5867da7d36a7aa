"""One RocksDB database with any number of accounts: the interface, method by method.

The directory of accounts is under `a`, the owner of each under `o` and its id, and its rows under `r`, its id and their
key.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

from rocksdict import Rdict, WriteBatch

from cryptostore import AccountRow, Batch, Database, Health, Range, Row, Schema, TakeOver, UnreadableRecord

from . import schema
from .engine import release, rows, shared

_DIRECTORY: Final = b"a"
_ID_BYTES: Final = 8
#: How many bytes come before the key of a row.
_PREFIX_BYTES: Final = 1 + _ID_BYTES


class RocksDBDatabase(Database):
    """A handle on a database, which it shares with the other handles of this process."""

    def __init__(self, path: Path) -> None:
        self._engine = shared(path)

    def take_over(self, user_id: str, device_id: str, claim: TakeOver, timeout: float) -> AccountRow:
        with self._engine.using(timeout) as rdict:
            new = AccountRow(claim.new_id, user_id, device_id, 0, 0, 0, "", 0)
            before = _find(rdict, user_id, device_id) or new
            row = before._replace(
                epoch=before.epoch + 1, incarnation=claim.incarnation, owner=claim.owner, since=claim.since
            )
            batch = WriteBatch(raw_mode=True)
            batch.put(_directory_key(user_id, device_id), _encoded_id(row.id))
            self._engine.write(rdict, batch, _ownership_key(row.id), json.dumps(row).encode())
            return row

    def find(self, user_id: str, device_id: str, timeout: float) -> AccountRow | None:
        with self._engine.using(timeout) as rdict:
            return _find(rdict, user_id, device_id)

    def accounts(self, timeout: float) -> list[AccountRow]:
        with self._engine.using(timeout) as rdict:
            found = [_row(rdict, value) for _, value in rows(rdict, _DIRECTORY, _DIRECTORY + b"\xff")]
        return [row for row in found if row is not None]

    def delete(self, account_id: int, timeout: float) -> None:
        with self._engine.using(timeout) as rdict:
            row = _row(rdict, _encoded_id(account_id))
            if row is not None:
                batch = WriteBatch(raw_mode=True)
                batch.delete_range(_row_key(account_id), _row_key(account_id + 1))
                batch.delete(_directory_key(row.user_id, row.device_id))
                self._engine.write(rdict, batch, _ownership_key(account_id), None)

    def get(self, account_id: int, keys: Sequence[bytes], timeout: float) -> list[Row]:
        with self._engine.using(timeout) as rdict:
            found = [(key, rdict.get(_row_key(account_id, key))) for key in keys]
        return [Row(key, value) for key, value in found if value is not None]

    def ranges(self, account_id: int, ranges: Sequence[Range], timeout: float) -> list[Row]:
        with self._engine.using(timeout) as rdict:
            return [row for each in ranges for row in _within(rdict, account_id, each)]

    def page(self, account_id: int, within: Range, size: int, timeout: float) -> list[Row]:
        with self._engine.using(timeout) as rdict:
            return _within(rdict, account_id, within, size)

    def commit(self, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        with self._engine.using(timeout) as rdict:
            found = _row(rdict, _encoded_id(account_id))
            expected = (batch.epoch, batch.incarnation, batch.number - 1)
            if found is None or (found.epoch, found.incarnation, found.sequence) != expected:
                return found
            writes = WriteBatch(raw_mode=True)
            for key, value in batch.puts:
                writes.put(_row_key(account_id, key), value)
            for key in batch.deletes:
                writes.delete(_row_key(account_id, key))
            row = found._replace(sequence=batch.number)
            self._engine.write(rdict, writes, _ownership_key(account_id), json.dumps(row).encode())
            return row

    def health(self, timeout: float) -> Health:
        with self._engine.using(timeout) as rdict:
            writable = not rdict.property_int_value("rocksdb.is-write-stopped")
        return Health(f"RocksDB in rocksdict {metadata.version('rocksdict')}", writable)

    def schema(self, timeout: float) -> Schema:  # noqa: ARG002  # a file is read without waiting
        return schema.read(self._engine.path)

    def close(self) -> None:
        release(self._engine)


def _find(rdict: Rdict, user_id: str, device_id: str) -> AccountRow | None:
    found = rdict.get(_directory_key(user_id, device_id))
    return None if found is None else _row(rdict, found)


def _row(rdict: Rdict, encoded_id: bytes) -> AccountRow | None:
    """The account's row. Raises UnreadableRecord: taken for absent, the account would be made again."""
    value = rdict.get(b"o" + encoded_id)
    try:
        return None if value is None else AccountRow(*json.loads(value))
    except (ValueError, TypeError):
        raise UnreadableRecord(
            "an account's row is damaged in the database and was left as it is; restore it from a backup"
        ) from None


def _within(rdict: Rdict, account_id: int, within: Range, limit: int | None = None) -> list[Row]:
    end = _row_key(account_id + 1) if within.end is None else _row_key(account_id, within.end)
    found = rows(rdict, _row_key(account_id, within.start), end, limit)
    return [Row(key[_PREFIX_BYTES:], value) for key, value in found]


def _directory_key(user_id: str, device_id: str) -> bytes:
    # Ids of users and devices hold no NUL.
    return _DIRECTORY + user_id.encode() + b"\0" + device_id.encode()


def _ownership_key(account_id: int) -> bytes:
    return b"o" + _encoded_id(account_id)


def _row_key(account_id: int, key: bytes = b"") -> bytes:
    return b"r" + _encoded_id(account_id) + key


def _encoded_id(account_id: int) -> bytes:
    return account_id.to_bytes(_ID_BYTES, "big")
