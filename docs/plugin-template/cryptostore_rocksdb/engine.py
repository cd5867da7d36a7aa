"""The open RocksDB, which all handles of this process share: RocksDB opens a folder once."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from rocksdict import DBRecoveryMode, Options, Rdict, ReadOptions, WriteBatch, WriteOptions

from cryptostore import BackendUnavailable, CryptoStoreError, Row, StoreClosed

from . import schema
from .errors import mapped_errors

_OPTIONS: Final = Options(raw_mode=True)
_OPTIONS.create_if_missing(True)
# RocksDB begins a new log of its own messages with every opening, and would keep a thousand.
_OPTIONS.set_keep_log_file_num(3)
# A kill may cut the last entry of the log of writes short. Any other damage must be an error: RocksDB's default would
# forget every later batch without a word.
_OPTIONS.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())

_FLUSHED: Final = WriteOptions()
_FLUSHED.sync = True

_engines: Final[dict[Path, Engine]] = {}
_guard: Final = threading.Lock()


class Engine:
    """RocksDB on a folder. `shared` makes one, and `release` gives it back.

    One lock serves readers and writers alike: what is read while it is held is a snapshot.
    """

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self.users = 0
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._rdict: Rdict | None = None

    @contextmanager
    def using(self, timeout: float) -> Iterator[Rdict]:
        """The open database, for one use at a time. Raises BackendUnavailable, and what an opening raises."""
        if self._is_inherited():
            raise StoreClosed(f"{self.path} was opened before a fork; fork before the database is opened")
        if not self._lock.acquire(timeout=timeout):
            raise BackendUnavailable(f"{self.path} was busy until the deadline", outcome_unknown=False)
        try:
            if not self.users:
                raise StoreClosed(f"the database {self.path} was closed; open it again to use it")
            with mapped_errors(self.path):
                yield self._opened()
        finally:
            self._lock.release()
            if not self.users:
                self.close()

    def write(self, batch: WriteBatch, key: bytes, value: bytes | None) -> None:
        """Write a batch, whole or not at all, and flush it to the disk.

        It gives `key` this value, or deletes it (None): that tells after a failure whether it was written all the same.
        """
        try:
            with mapped_errors(self.path):
                self._opened().write(batch, _FLUSHED)
        except CryptoStoreError as failure:
            # RocksDB takes no more writes after a failed one, until the database is opened again.
            self._shut()
            if self._after(failure, key) != value:
                raise

    def close(self) -> None:
        """Give RocksDB's lock back: at once, or at the end of a use that is under way."""
        # RocksDB's threads stayed with the parent, and so did the thread that holds our lock.
        if not self._is_inherited() and self._lock.acquire(blocking=False):
            self._shut()
            self._lock.release()

    def _is_inherited(self) -> bool:
        return self._process != os.getpid()

    def _opened(self) -> Rdict:
        if self._rdict is None:
            schema.prepare(self.path)
            self._rdict = Rdict(str(self.path), _OPTIONS)
        return self._rdict

    def _shut(self) -> None:
        rdict, self._rdict = self._rdict, None
        # After a failed write, closing reports the same failure once more.
        with suppress(CryptoStoreError), mapped_errors(self.path):
            if rdict is not None:
                rdict.close()

    def _after(self, failure: CryptoStoreError, key: bytes) -> bytes | None:
        try:
            with mapped_errors(self.path):
                return self._opened().get(key)
        except CryptoStoreError as error:
            raise BackendUnavailable(f"{self.path} could not be opened again after {failure}: {error}") from error


def rows(rdict: Rdict, start: bytes, end: bytes, limit: int | None = None) -> list[Row]:
    """Up to `limit` rows with keys from `start` to below `end`, in order."""
    options = ReadOptions()
    options.set_iterate_upper_bound(end)
    found: list[Row] = []
    iterator = rdict.iter(options)
    iterator.seek(start)
    while iterator.valid() and len(found) != limit:
        found.append(Row(iterator.key(), iterator.value()))
        iterator.next()
    # An iterator that met a bad block is at its end, too.
    iterator.status()
    return found


def shared(path: Path, timeout: float) -> Engine:
    """The engine at `path`, opened; one for all users in this process. Every call needs a `release` of its own."""
    with _guard:
        engine = _engines.setdefault(path, Engine(path))
        engine.users += 1
    try:
        with engine.using(timeout):
            return engine
    except BaseException:
        release(engine)
        raise


def release(engine: Engine) -> None:
    """Give back what `shared` gave; the last one to do so closes the engine."""
    with _guard:
        engine.users -= 1
        if not engine.users:
            del _engines[engine.path]
            engine.close()
