"""Access to the database for the adapter, and the backends that clients on the same URL share."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Final, TypeVar

from cryptostore.errors import BackendUnavailable, InvalidRecord, StorageFull
from cryptostore.plugins import open_backend
from cryptostore.records import Account, Key, Record, check_key, check_prefix
from cryptostore.records.changes import NOTHING, Changes
from cryptostore.store.answers import Found, Selected
from cryptostore.store.backend import Backend
from cryptostore.store.crypto_store import CryptoStore

from .ahead import ReadAhead
from .pieces import in_pieces

R = TypeVar("R", bound=Record)


class Storage:
    """One account's store as the adapter sees it. Everything that is written goes through `write`.

    Look-ups take keys as the network sent them, and ignore those that no record can have. The store is closed with
    the last reference to this object, or at the interpreter's exit, because stock nio closes no store.
    """

    def __init__(self, store: CryptoStore, release: Callable[[], None]) -> None:
        self._store = store
        self._ahead = ReadAhead()
        self._waiting = Changes()
        #: What was written inside `hold_back`, in its order.
        self._held: list[Changes] = []
        self._holding_back = False
        self._lock = threading.Lock()
        self._finalizer = weakref.finalize(self, _close, os.getpid(), store, release)

    @property
    def account(self) -> Account:
        """Whose store this is."""
        return self._store.account

    def read_ahead(self, prefixes: Iterable[tuple[type[Record], Key]]) -> None:
        """Read what will be asked for soon, in one round trip.

        It answers the first `get` or `select` for just these prefixes, unless something of their kind was written.
        """
        self._ahead = ReadAhead(self._store.select_together(prefixes))

    def get(self, kind: type[R], keys: Iterable[Key]) -> Found[R]:
        """As `CryptoStore.get`, but ignores invalid keys."""
        wanted = list(keys)
        ahead = self._ahead.take(kind, wanted)
        if ahead is not None:
            return found_in(ahead)
        try:
            return self._store.get(kind, wanted)
        except InvalidRecord:
            return self._store.get(kind, [key for key in wanted if _is_valid(check_key, kind, key)])

    def select(self, kind: type[R], prefixes: Iterable[Key]) -> Selected[R]:
        """As `CryptoStore.select`, with an empty list for an invalid prefix."""
        wanted = list(prefixes)
        valid = [prefix for prefix in wanted if _is_valid(check_prefix, kind, prefix)]
        found = self._ahead.take(kind, valid) or self._store.select(kind, valid)
        for prefix in wanted:
            found.setdefault(prefix, [])
        return found

    def scan(self, kind: type[R], prefix: Key = ()) -> Iterator[R]:
        """As `CryptoStore.scan`; there is nothing under an invalid prefix."""
        return self._store.scan(kind, prefix) if _is_valid(check_prefix, kind, prefix) else iter(())

    def stored(self, kind: type[R], after: Key | None = None) -> Iterator[R]:
        """As `CryptoStore.scan`, for a whole kind: what is durable, whatever waits."""
        return self._store.scan(kind, after=after)

    def keys(self, kind: type[Record]) -> Iterator[Key]:
        """As `CryptoStore.keys`, for a whole kind."""
        return self._store.keys(kind)

    def write(self, changes: Changes) -> Changes:
        """Make `changes` durable, together with what is waiting, and return the whole batch.

        A batch that finds no database, or no room in it, waits and goes with the next one. Inside `hold_back`
        everything waits, and nothing is durable yet.
        """
        with self._lock:
            self._ahead.forget(changes)
            if self._holding_back:
                if changes:
                    self._held.append(changes)
                return NOTHING
            self._waiting = self._waiting.followed_by(*self._held)
            self._held.clear()
            batch = self._waiting.followed_by(changes)
            try:
                self._apply(batch)
            except BaseException as error:
                # After an interrupt, too: the batch may become durable yet, and what waits must not be older.
                if isinstance(error, BackendUnavailable | StorageFull) or not isinstance(error, Exception):
                    self._waiting = batch
                raise
            self._waiting = Changes()
            return batch

    def _apply(self, batch: Changes) -> None:
        for piece in in_pieces(batch):
            self._store.apply(piece)

    @contextmanager
    def hold_back(self) -> Iterator[None]:
        """Let everything that is written inside the block wait for the first `write` after it. Blocks do not nest."""
        self._holding_back = True
        try:
            yield
        finally:
            self._holding_back = False

    def close(self) -> None:
        """Close the store, and its backend if this was the last user of it. Closing twice is no error."""
        self._ahead = ReadAhead()
        self._finalizer()


class _SharedBackend:
    """A backend and the number of its users; it is opened by the first one and closed after the last one."""

    def __init__(self) -> None:
        self.users = 0
        #: None where the first one was interrupted.
        self.opened: Future[Backend | None] = Future()
        self.closed: Future[None] = Future()


class Backends:
    """The backends that are open in this process, one for each URL, closed with their last user.

    Opening and closing hold no lock: only who wants the same URL waits, and fails with the attempt that it waited for.
    """

    def __init__(self) -> None:
        # Reentrant: the garbage collector may release one backend while another is acquired.
        self._lock = threading.RLock()
        self._shared: dict[tuple[int, str], _SharedBackend] = {}

    def acquire(self, url: str) -> tuple[Backend, Callable[[], None]]:
        """The backend for `url`, and a function that gives it back. Raises as `open_backend` does."""
        # A forked child cannot use its parent's connections.
        key = (os.getpid(), url)
        while True:
            shared, is_first = self._join(key)
            if is_first:
                self._open(key, shared)
            elif not shared.users:
                shared.closed.result()
                continue
            backend = shared.opened.result()
            if backend is not None:
                return backend, partial(self._release, key, shared, backend)

    def _join(self, key: tuple[int, str]) -> tuple[_SharedBackend, bool]:
        """What is shared under this key, with one user more unless its last one has gone; and whether it is new."""
        with self._lock:
            shared = self._shared.get(key)
            if shared is None:
                shared = self._shared[key] = _SharedBackend()
            elif not shared.users:
                return shared, False
            shared.users += 1
            return shared, shared.users == 1

    def _open(self, key: tuple[int, str], shared: _SharedBackend) -> None:
        try:
            backend = open_backend(key[1])
        except BaseException as error:
            with self._lock:
                del self._shared[key]
            # An interrupt is meant for this thread alone.
            if isinstance(error, Exception):
                shared.opened.set_exception(error)
            else:
                shared.opened.set_result(None)
            raise
        shared.opened.set_result(backend)

    def _release(self, key: tuple[int, str], shared: _SharedBackend, backend: Backend) -> None:
        with self._lock:
            shared.users -= 1
            if shared.users:
                return
        try:
            backend.close()
        finally:
            with self._lock:
                del self._shared[key]
            shared.closed.set_result(None)


#: The backends of this process.
backends: Final = Backends()


def _close(opener: int, store: CryptoStore, release: Callable[[], None]) -> None:
    # A forked child must not say goodbye on its parent's connections.
    if os.getpid() != opener:
        return
    try:
        store.close()
    finally:
        release()


def _is_valid(check: Callable[[type[Record], Key], Key], kind: type[Record], key: Key) -> bool:
    try:
        check(kind, key)
    except InvalidRecord:
        return False
    return True


def found_in(selected: Selected[R]) -> Found[R]:
    """What was selected by whole keys, by key."""
    found: Found[R] = Found()
    found.update({record.key: record for records in selected.values() for record in records})
    found.unreadable = selected.unreadable
    return found
