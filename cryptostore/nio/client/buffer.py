"""The write buffer: what nio saves waits in memory until a flush makes it durable as one batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from heapq import merge
from typing import TypeVar

from cryptostore.nio.storage import Storage
from cryptostore.records import Key, Record
from cryptostore.records.changes import Changes, RecordKey
from cryptostore.store.answers import Found, Selected
from cryptostore.store.crypto_store import CryptoStore
from cryptostore.store.keys import encode_key
from cryptostore.store.secrets import SecretSeal

from .statistics import Statistics

R = TypeVar("R", bound=Record)


class BufferedStorage(Storage):
    """One account's store with a buffer before it. Reads see what waits over what is in flight over the database.

    `take` moves what waits into flight, on the event loop; `apply_taken` makes it durable, in a thread; `taken` or
    `put_back` ends the flight, on the loop again. One flight at a time.
    """

    def __init__(self, store: CryptoStore, release: Callable[[], None], statistics: Statistics) -> None:
        super().__init__(store, release)
        self._statistics = statistics
        self._in_flight = Changes()
        self._loop_thread: int | None = None
        self._on_write: Callable[[], None] | None = None

    def attach(self, on_write: Callable[[], None]) -> None:
        """Belong to the event loop of this thread, and call `on_write` there after every write."""
        self._loop_thread = threading.get_ident()
        self._on_write = on_write

    def write(self, changes: Changes) -> Changes:
        """Let `changes` wait for the next flush. Nothing is durable yet, so nothing is returned."""
        if changes:
            with self._lock:
                self._ahead.forget(changes)
                self._waiting = self._waiting.followed_by(changes)
            self.touch()
        return Changes()

    def touch(self) -> None:
        """Say that something waits, here or as a live object that changed."""
        if self._on_write is not None and threading.get_ident() == self._loop_thread:
            self._on_write()

    @property
    def is_waiting(self) -> bool:
        """Whether records wait for a flush."""
        return bool(self._waiting)

    @property
    def is_in_flight(self) -> bool:
        """Whether a batch was taken, and is not known to be durable yet."""
        return bool(self._in_flight)

    def take(self, changes: Changes) -> Changes:
        """Begin a flight with what waits and, over it, `changes`. Returns the batch."""
        with self._lock:
            self._ahead.forget(changes)
            self._in_flight, self._waiting = self._waiting.followed_by(changes), Changes()
            return self._in_flight

    def apply_taken(self) -> None:
        """Make the batch in flight durable. Raises what `CryptoStore.apply` raises."""
        self._apply(self._in_flight)

    def taken(self) -> None:
        """The batch in flight is durable."""
        with self._lock:
            self._in_flight = Changes()

    @property
    def durable(self) -> CryptoStore:
        """The store itself, to read what is durable, whatever waits. From a thread."""
        return self._store

    def pending_keys(self) -> set[RecordKey]:
        """The keys that wait or are in flight."""
        return set(self._pending().keys())

    @property
    def replay_key(self) -> bytes:
        """As `CryptoStore.replay_key`."""
        return self._store.replay_key

    @property
    def secrets(self) -> SecretSeal:
        """As `CryptoStore.secrets`."""
        return self._store.secrets

    def check_ownership(self) -> None:
        """As `CryptoStore.check_ownership`, from a thread."""
        self._store.check_ownership()

    def put_back(self) -> None:
        """The batch in flight may not be durable: it waits again, under what came since."""
        with self._lock:
            self._waiting, self._in_flight = self._in_flight.followed_by(self._waiting), Changes()

    def get(self, kind: type[R], keys: Iterable[Key]) -> Found[R]:
        wanted = list(keys)
        if not wanted:
            return Found()
        self._count_read()
        # Taken before the read: a batch that becomes durable meanwhile says the same.
        pending = self._pending()
        found = super().get(kind, wanted)
        operations = pending.operations(kind)
        for key in wanted:
            if key in operations:
                _lay_over(found, key, operations[key])
                found.unreadable.pop(key, None)
        return found

    def select(self, kind: type[R], prefixes: Iterable[Key]) -> Selected[R]:
        wanted = list(prefixes)
        if not wanted:
            return Selected()
        self._count_read()
        pending = self._pending()
        selected = super().select(kind, wanted)
        for prefix, rows in selected.items():
            selected[prefix] = _overlaid(rows, pending, kind, prefix)
        for key in pending.operations(kind):
            selected.unreadable.pop(key, None)
        return selected

    def scan(self, kind: type[R], prefix: Key = ()) -> Iterator[R]:
        self._count_read()
        pending = self._pending()
        operations = pending.operations(kind)
        yield from (row for row in super().scan(kind, prefix) if row.key not in operations)
        yield from _overlaid([], pending, kind, prefix)

    def keys(self, kind: type[Record]) -> Iterator[Key]:
        self._count_read()
        operations = self._pending().operations(kind)
        in_order = partial(encode_key, kind)
        added = sorted((key for key, record in operations.items() if record is not None), key=in_order)
        yield from merge((key for key in super().keys(kind) if key not in operations), added, key=in_order)

    def _pending(self) -> Changes:
        with self._lock:
            return self._in_flight.followed_by(self._waiting)

    def _count_read(self) -> None:
        if threading.get_ident() == self._loop_thread:
            self._statistics.loop_reads += 1


def _overlaid(rows: list[R], pending: Changes, kind: type[R], prefix: Key) -> list[R]:
    over = {key: record for key, record in pending.operations(kind).items() if key[: len(prefix)] == prefix}
    if not over:
        return rows
    by_key = {row.key: row for row in rows}
    for key, record in over.items():
        _lay_over(by_key, key, record)
    return [by_key[key] for key in sorted(by_key, key=partial(encode_key, kind))]


def _lay_over(by_key: dict[Key, R], key: Key, record: R | None) -> None:
    if record is None:
        by_key.pop(key, None)
    else:
        by_key[key] = record
