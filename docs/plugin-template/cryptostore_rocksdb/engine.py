"""The open RocksDB, which all handles of this process share: RocksDB opens a folder once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from rocksdict import DBRecoveryMode, Options, Rdict, ReadOptions, WriteBatch, WriteOptions

from cryptostore import BackendUnavailable, CryptoStoreError, Row, StoreClosed

from . import schema
from .errors import mapped_errors

#: RocksDB begins a new log of its own messages with every opening; so many old ones are kept.
_LOG_FILES: Final = 3


class Engine:
    """RocksDB on a folder. `shared` makes one, and `release` gives it back.

    One lock serves readers and writers alike: what is read while it is held is a snapshot.
    """

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self.users = 0
        self._lock = threading.Lock()
        self._rdict: Rdict | None = None

    @contextmanager
    def using(self, timeout: float) -> Iterator[Rdict]:
        """The open database, for one user at a time. Raises BackendUnavailable."""
        if not self._lock.acquire(timeout=timeout):
            raise BackendUnavailable(f"{self.path} was busy until the deadline", outcome_unknown=False)
        try:
            if self._rdict is None:
                raise StoreClosed(f"the database {self.path} was closed; open it again to use it")
            with mapped_errors(self.path):
                yield self._rdict
        finally:
            self._lock.release()

    def open(self) -> None:
        """Open the folder, unless it is open. Raises BackendUnavailable while another process has it open."""
        if self._rdict is None:
            schema.prepare(self.path)
            with mapped_errors(self.path):
                self._rdict = Rdict(str(self.path), _options())

    def close(self) -> None:
        """Give RocksDB's lock back: at once, or at the end of a use that is under way."""
        rdict, self._rdict = self._rdict, None
        if rdict is not None and self._lock.acquire(blocking=False):
            # After a failed write, closing reports the same failure once more.
            with suppress(CryptoStoreError), mapped_errors(self.path):
                rdict.close()
            self._lock.release()

    def write(self, rdict: Rdict, batch: WriteBatch, account_key: bytes, row: bytes | None) -> None:
        """Write a batch and the account's new row (None deletes it), whole or not at all, and flush it to the disk.

        Every batch changes a row, so the row tells after a failure whether the batch was written all the same.
        """
        if row is None:
            batch.delete(account_key)
        else:
            batch.put(account_key, row)
        try:
            with mapped_errors(self.path):
                rdict.write(batch, _flushed())
        except CryptoStoreError as error:
            # RocksDB takes no more writes after a failed one, until the database is opened again.
            if self._opened_again(error).get(account_key) != row:
                raise

    def _opened_again(self, failure: CryptoStoreError) -> Rdict:
        if self._rdict is not None:
            with suppress(CryptoStoreError), mapped_errors(self.path):
                self._rdict.close()
        try:
            with mapped_errors(self.path):
                self._rdict = Rdict(str(self.path), _options())
        except CryptoStoreError as error:
            raise BackendUnavailable(f"{self.path} could not be opened again after {failure}: {error}") from error
        return self._rdict


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


def shared(path: Path) -> Engine:
    """The engine at `path`, opened; one for all users in this process. Every call needs a `release` of its own."""
    with _guard:
        engine = _engines.get(path) or Engine(path)
        engine.open()
        engine.users += 1
        _engines[path] = engine
    return engine


def release(engine: Engine) -> None:
    """Give back what `shared` gave; the last one to do so closes the engine."""
    with _guard:
        engine.users -= 1
        if engine.users == 0:
            del _engines[engine.path]
            engine.close()


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_keep_log_file_num(_LOG_FILES)
    # A kill may cut the last entry of the log short. Any other damage must be an error: RocksDB's default would
    # forget every later batch without a word.
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    return options


def _flushed() -> WriteOptions:
    options = WriteOptions()
    options.sync = True
    return options


_guard: Final = threading.Lock()
_engines: Final[dict[Path, Engine]] = {}
