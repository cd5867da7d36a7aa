"""The executable model: a database in a few dictionaries, to read beside the interface and to test against."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from cryptostore.errors import BackendUnavailable

from .interface import AccountRow, Batch, Database, Health, Range, Row, Schema, TakeOver


@dataclass
class MemoryRecords:
    """The rows of one account: values by key, and the keys in order."""

    values: dict[bytes, bytes] = field(default_factory=dict)
    order: list[bytes] = field(default_factory=list)

    def put(self, row: Row) -> None:
        if row.key not in self.values:
            insort(self.order, row.key)
        self.values[row.key] = row.value

    def delete(self, key: bytes) -> None:
        if self.values.pop(key, None) is not None:
            del self.order[bisect_left(self.order, key)]

    def within(self, wanted: Range) -> list[bytes]:
        """The keys in a range, in order."""
        end = len(self.order) if wanted.end is None else bisect_left(self.order, wanted.end)
        return self.order[bisect_left(self.order, wanted.start) : end]

    def rows(self, keys: Sequence[bytes]) -> list[Row]:
        return [Row(key, self.values[key]) for key in keys if key in self.values]


class MemoryDatabase:
    """What the handles of one in-memory database share."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.accounts: dict[tuple[str, str], AccountRow] = {}
        self.records: dict[int, MemoryRecords] = {}


class MemoryHandle(Database):
    """A handle on a `MemoryDatabase`: one transaction at a time."""

    def __init__(self, shared: MemoryDatabase) -> None:
        self.shared = shared

    def take_over(self, user_id: str, device_id: str, claim: TakeOver, timeout: float) -> AccountRow:
        with self._transaction(timeout) as shared:
            owned = claim.row_after(shared.accounts.get((user_id, device_id)), user_id, device_id)
            shared.accounts[user_id, device_id] = owned
            shared.records.setdefault(owned.id, MemoryRecords())
            return owned

    def find(self, user_id: str, device_id: str, timeout: float) -> AccountRow | None:
        with self._transaction(timeout) as shared:
            return shared.accounts.get((user_id, device_id))

    def accounts(self, timeout: float) -> list[AccountRow]:
        with self._transaction(timeout) as shared:
            return list(shared.accounts.values())

    def delete(self, account_id: int, timeout: float) -> None:
        with self._transaction(timeout) as shared:
            shared.accounts = {name: row for name, row in shared.accounts.items() if row.id != account_id}
            shared.records.pop(account_id, None)

    def get(self, account_id: int, keys: Sequence[bytes], timeout: float) -> list[Row]:
        with self._transaction(timeout) as shared:
            return self._records(shared, account_id).rows(keys)

    def ranges(self, account_id: int, ranges: Sequence[Range], timeout: float) -> list[Row]:
        with self._transaction(timeout) as shared:
            records = self._records(shared, account_id)
            return [row for each in ranges for row in records.rows(records.within(each))]

    def page(self, account_id: int, within: Range, size: int, timeout: float) -> list[Row]:
        with self._transaction(timeout) as shared:
            records = self._records(shared, account_id)
            return records.rows(records.within(within)[:size])

    def commit(self, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        with self._transaction(timeout) as shared:
            found = next((row for row in shared.accounts.values() if row.id == account_id), None)
            if found is None or not batch.follows(found):
                return found
            records = self._records(shared, account_id)
            for row in batch.puts:
                records.put(row)
            for key in batch.deletes:
                records.delete(key)
            owned = batch.row_after(found)
            shared.accounts[found.user_id, found.device_id] = owned
            return owned

    def health(self, timeout: float) -> Health:
        return Health(server="memory", writable=True)

    def schema(self, timeout: float) -> Schema:
        return Schema(version=1, min_compatible=1)

    def close(self) -> None:
        """Nothing is held: the database lives as long as its name, or its last handle."""

    @contextmanager
    def _transaction(self, timeout: float) -> Iterator[MemoryDatabase]:
        if not self.shared.lock.acquire(timeout=timeout):
            raise BackendUnavailable("the in-memory database was busy until the deadline", outcome_unknown=False)
        try:
            yield self.shared
        finally:
            self.shared.lock.release()

    @staticmethod
    def _records(shared: MemoryDatabase, account_id: int) -> MemoryRecords:
        return shared.records.get(account_id) or MemoryRecords()
