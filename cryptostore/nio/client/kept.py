"""All records of a kind, in memory."""

from __future__ import annotations

from typing import Generic, TypeVar

from cryptostore.records import Key, Record
from cryptostore.records.changes import Changes, RecordKey

from .buffer import BufferedStorage

R = TypeVar("R", bound=Record)


class KeptRecords(Generic[R]):
    """The account's records of `kind`, which are few. What changes is written with the next flush."""

    def __init__(self, storage: BufferedStorage, kind: type[R]) -> None:
        self._storage = storage
        self._kind = kind
        found = storage.select(kind, [()])
        #: Those that there are, by their keys; to look at.
        self.rows: dict[Key, R] = {row.key: row for row in found[()]}
        #: The keys of those that are there, and cannot be read.
        self.unreadable = [key for key in found.unreadable if key is not None]
        self._saved = set(self.rows)
        self._touched: set[Key] = set()

    def put(self, row: R) -> None:
        """Keep a record, in place of the one with its key."""
        self.rows[row.key] = row
        self._touch(row.key)

    def drop(self, key: Key) -> None:
        """Forget the record with this key, if there is one."""
        if self.rows.pop(key, None) is not None:
            self._touch(key)

    def forget(self, key: Key) -> None:
        """Delete a record that cannot be read."""
        self._saved.add(key)
        self._touch(key)

    @property
    def is_dirty(self) -> bool:
        """Whether a flush has something to write."""
        return bool(self._touched)

    def collect(self) -> Changes:
        """The records to write."""
        puts = [self.rows[key] for key in self._touched & self.rows.keys()]
        gone = (self._touched & self._saved) - self.rows.keys()
        self._saved = (self._saved | self._touched) & self.rows.keys()
        self._touched = set()
        return Changes(puts, [RecordKey(self._kind, key) for key in gone])

    def _touch(self, key: Key) -> None:
        self._touched.add(key)
        self._storage.touch()
