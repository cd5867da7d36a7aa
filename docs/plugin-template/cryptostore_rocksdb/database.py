"""The open database, which all handles of this process share: RocksDB opens a folder once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from rocksdict import DBRecoveryMode, Options, Rdict, ReadOptions, WriteBatch, WriteOptions

from cryptostore import BackendUnavailable, CryptoStoreError, Schema, StoreClosed

from . import schema
from .errors import mapped_errors

Row = tuple[bytes, bytes]

#: RocksDB's own log of its doings begins anew with every opening; so many old ones are kept.
_LOG_FILES: Final = 3

_RETRY_SECONDS: Final = 0.05


class Database:
    """A folder with a database in it, open from its first use on. `shared` makes one, and `release` gives it back.

    One lock serves readers and writers alike. Nothing holds it longer than one batch or one page.
    """

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self.schema: Schema = schema.CURRENT
        self.users = 0
        self._lock = threading.Lock()
        self._rdict: Rdict | None = None
        self._closed = False

    @contextmanager
    def using(self, timeout: float) -> Iterator[OpenDatabase]:
        """The open database, for nobody else until the block ends; opened if need be. Raises BackendUnavailable."""
        ends = time.monotonic() + timeout
        if not self._lock.acquire(timeout=timeout):
            raise BackendUnavailable(f"{self.path} was busy until the deadline")
        try:
            yield OpenDatabase(self, self._opened(ends))
        finally:
            self._lock.release()
            # Whoever closed the database may have given up waiting for this user.
            if self._closed and self._lock.acquire(blocking=False):
                self._close_and_release()

    def open_again(self) -> Rdict:
        """Read the database anew from its files, inside `using`. Raises BackendUnavailable."""
        self._close_rdict()
        try:
            return self._opened(time.monotonic())
        except CryptoStoreError as error:
            raise BackendUnavailable(f"{self.path} could not be opened again after a failed write: {error}") from error

    def close(self, timeout: float) -> None:
        """Let nobody use the database any more, and give RocksDB's lock back.

        If somebody uses the database until the deadline, RocksDB's lock is given back at the end of that use.
        """
        # Before the wait: who ends its use after it must know.
        self._closed = True
        if self._lock.acquire(timeout=timeout):
            self._close_and_release()

    def _opened(self, ends: float) -> Rdict:
        if self._closed:
            raise StoreClosed(f"the database {self.path} was closed; open it again to use it")
        while self._rdict is None:
            try:
                self._open()
            except BackendUnavailable:
                # The process before this one may be at its end.
                if time.monotonic() + _RETRY_SECONDS >= ends:
                    raise
                time.sleep(_RETRY_SECONDS)
        return self._rdict

    def _open(self) -> None:
        self.schema = schema.prepare(self.path)
        with mapped_errors(self.path):
            self._rdict = Rdict(str(self.path), _options())

    def _close_and_release(self) -> None:
        try:
            self._close_rdict()
        finally:
            self._lock.release()

    def _close_rdict(self) -> None:
        rdict, self._rdict = self._rdict, None
        if rdict is not None:
            # After a failed write, closing reports the same failure once more.
            with suppress(CryptoStoreError), mapped_errors(self.path):
                rdict.close()


class OpenDatabase:
    """What can be done with a database while its lock is held."""

    def __init__(self, database: Database, rdict: Rdict) -> None:
        self._database = database
        self._rdict = rdict

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        with mapped_errors(self._database.path):
            value: bytes | None = self._rdict.get(key)
        return value

    def range(self, begin: bytes, end: bytes, limit: int | None = None) -> list[Row]:
        """Up to `limit` rows with keys from `begin` to below `end`, in order."""
        options = ReadOptions()
        options.set_iterate_upper_bound(end)
        rows: list[Row] = []
        with mapped_errors(self._database.path):
            iterator = self._rdict.iter(options)
            iterator.seek(begin)
            while iterator.valid() and len(rows) != limit:
                rows.append((iterator.key(), iterator.value()))
                iterator.next()
            # An iterator that met a bad block is at its end, too.
            iterator.status()
        return rows

    def commit(self, batch: WriteBatch, account_key: bytes, row: bytes | None) -> None:
        """Write a batch and the account's new row (None deletes it), whole or not at all, and flush it to the disk.

        Every batch changes a row, so the row tells after a failure whether the batch was written all the same.
        """
        if row is None:
            batch.delete(account_key)
        else:
            batch.put(account_key, row)
        try:
            with mapped_errors(self._database.path):
                self._rdict.write(batch, _flushed())
        except CryptoStoreError:
            # RocksDB takes no more writes after a failed one, until the database is opened again.
            self._rdict = self._database.open_again()
            if self.get(account_key) != row:
                raise

    def is_writable(self) -> bool:
        """Whether RocksDB takes writes."""
        with mapped_errors(self._database.path):
            return not self._rdict.property_int_value("rocksdb.is-write-stopped")


def shared(path: Path, deadline: float) -> Database:
    """The database at `path`, opened; one for all users in this process. Every call needs a `release` of its own."""
    with _guard:
        database = _databases.setdefault(path, Database(path))
        database.users += 1
    try:
        with database.using(deadline):
            return database
    except BaseException:
        release(database, deadline)
        raise


def release(database: Database, deadline: float) -> None:
    """Give back what `shared` gave; the last one to do so closes the database."""
    with _guard:
        database.users -= 1
        if database.users:
            return
        del _databases[database.path]
    database.close(deadline)


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
_databases: Final[dict[Path, Database]] = {}
