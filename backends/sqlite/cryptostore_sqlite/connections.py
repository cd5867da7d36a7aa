"""Connections to one database file: one that writes, under a lock, and as many that read as there are readers."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from cryptostore import BackendUnavailable, ConfigurationError, Schema, StoreClosed
from cryptostore.logs import logger

from . import files
from .errors import is_busy, is_read_only, mapped_errors, name_of
from .opened import OpenFile
from .schema import SHIPPED, Migrations

#: How many idle connections for reading are kept.
_IDLE_READERS: Final = 4

#: How long the writer waits for readers before it leaves the erasing of deleted rows to the next write.
_ERASING_SECONDS: Final = 0.1

_RETRY_SECONDS: Final = 0.01

# Sorting large results must not spill keys into temporary files: those are neither private nor erased.
_SETTINGS: Final = """
    PRAGMA encoding = 'UTF-8';
    PRAGMA synchronous = FULL;
    PRAGMA secure_delete = ON;
    PRAGMA temp_store = MEMORY;
"""

_log: Final = logger(__name__)


class Connections:
    """The open database at `path`: created if need be, in WAL mode, its tables up to date.

    A file that cannot be written opens as well if its tables are up to date. A process that is forked off while the
    database is open cannot use it. Raises ConfigurationError, SchemaError, BackendUnavailable, StorageFull.
    """

    def __init__(self, path: Path, timeout: float, migrations: Migrations = SHIPPED) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._idle_readers: list[sqlite3.Connection] = []
        self._closed = False
        self._write_lock = threading.Lock()
        files.ensure_private_file(path)
        self._file = OpenFile(path)
        # A killed program that left a -wal behind may have deleted rows without erasing them.
        self._erasure_is_due = files.has_write_ahead_log(path)
        with mapped_errors(path, opening=True):
            self._writer = _open_writer(path, timeout, migrations)

    @contextmanager
    def reading(self, timeout: float) -> Iterator[sqlite3.Connection]:
        """One snapshot for all the statements of a block. Waits for no writer, and `timeout` seconds for a recovery."""
        reader = self._take_reader(timeout)
        try:
            with mapped_errors(self._path):
                _wait_at_most(reader, timeout)
                with _transaction(reader, "BEGIN"):
                    yield reader
        finally:
            self._give_back(reader)

    @contextmanager
    def writing(self, timeout: float, *, opening: bool = False, erases: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction, alone on the database from its beginning and durable at its end.

        Raises BackendUnavailable if others write for longer than `timeout` seconds. With `opening`, a file that cannot
        be written is a ConfigurationError. With `erases`, what the transaction deletes stays in none of the files.
        """
        with mapped_errors(self._path, opening=opening), self._the_writer(timeout) as writer:
            with _transaction(writer, "BEGIN IMMEDIATE"):
                yield writer
            self._erasure_is_due |= erases
            if self._erasure_is_due:
                self._erase(writer)

    def is_writable(self, timeout: float) -> bool:
        """Ask the file, through a new connection. Waits for no writer."""
        self._check()
        with mapped_errors(self._path), closing(_connect(self._path, timeout)) as connection:
            _wait_at_most(connection, 0)
            try:
                # Not BEGIN IMMEDIATE, which begins to read where it may not write.
                connection.execute("UPDATE ownership SET epoch = epoch WHERE FALSE")
            except sqlite3.OperationalError as error:
                if is_busy(error) or is_read_only(error):
                    return is_busy(error)
                raise
            return True

    def close(self) -> None:
        """Close every connection as soon as it is idle. With the last one, SQLite removes -wal and -shm."""
        # Closing inherited connections after a fork would interfere with those of the parent.
        if self._file.is_inherited():
            return
        with self._guard:
            self._closed = True
            for reader in self._idle_readers:
                reader.close()
        with self._write_lock, mapped_errors(self._path):
            if self._erasure_is_due:
                self._erase(self._writer)
            self._writer.close()
        self._file.forget()

    def _check(self) -> None:
        if self._closed:
            raise StoreClosed(f"the database {self._path} was closed; open it again to use it")
        self._file.check()

    def _take_reader(self, timeout: float) -> sqlite3.Connection:
        with self._guard:
            # Inside, or a reader could be taken that `close` has closed.
            self._check()
            if self._idle_readers:
                return self._idle_readers.pop()
        with mapped_errors(self._path):
            return _connect(self._path, timeout, "PRAGMA query_only = ON")

    def _give_back(self, reader: sqlite3.Connection) -> None:
        with self._guard:
            if self._closed or reader.in_transaction or len(self._idle_readers) >= _IDLE_READERS:
                reader.close()
            else:
                self._idle_readers.append(reader)

    @contextmanager
    def _the_writer(self, timeout: float) -> Iterator[sqlite3.Connection]:
        ends = time.monotonic() + timeout
        self._check()
        if not self._write_lock.acquire(timeout=timeout):
            raise BackendUnavailable(
                f"other threads of this process wrote to {self._path} until the deadline", outcome_unknown=False
            )
        try:
            self._check()
            _wait_at_most(self._writer, ends - time.monotonic())
            yield self._writer
        finally:
            self._write_lock.release()

    def _erase(self, writer: sqlite3.Connection) -> None:
        """Write deleted rows over with zeros in the database file, and empty the -wal file, which still holds them."""
        try:
            _wait_at_most(writer, _ERASING_SECONDS)
            (busy, _, _) = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            # The transaction is durable already, so this must not make it look as if it had failed.
            if not is_read_only(error):
                _log.warning(
                    "cannot erase deleted rows of %s (%s); the next write tries again", self._path, name_of(error)
                )
        else:
            self._erasure_is_due = bool(busy)


def _open_writer(path: Path, timeout: float, migrations: Migrations) -> sqlite3.Connection:
    ends = time.monotonic() + timeout
    found = _inspect(path, timeout, migrations)
    writer = _connect(path, ends - time.monotonic())
    try:
        _use_write_ahead_log(writer, path, ends)
        if found is None or found.version < migrations.known_version:
            _wait_at_most(writer, ends - time.monotonic())
            with _transaction(writer, "BEGIN IMMEDIATE"):
                migrations.migrate(writer, path)
    except BaseException:
        writer.close()
        raise
    return writer


def _inspect(path: Path, timeout: float, migrations: Migrations) -> Schema | None:
    """What `Migrations.inspect` says, without a change to a file that is not ours to use."""
    # A connection that may write, and is the last to close, moves what a killed program left in the -wal file into the
    # database. One that only reads does not, but leaves a -wal and -shm behind where there were none.
    mode = "ro" if files.has_write_ahead_log(path) else "rw"
    with (
        closing(_connect(path, timeout, "PRAGMA query_only = ON", mode=mode)) as connection,
        # One snapshot: tables that another program makes meanwhile must not look like a stranger's.
        _transaction(connection, "BEGIN"),
    ):
        return migrations.inspect(connection, path)


def _use_write_ahead_log(connection: sqlite3.Connection, path: Path, ends: float) -> None:
    # SQLite does not wait here for others that may be doing the same.
    _wait_at_most(connection, 0)
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            break
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > ends:
                raise
            time.sleep(_RETRY_SECONDS)
    if mode != b"wal":
        raise ConfigurationError(
            f"SQLite cannot keep a write-ahead log beside {path}; move the database to a local disk"
        )


def _connect(path: Path, timeout: float, *settings: str, mode: str = "rw") -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file://{quote(os.fsencode(path))}?mode={mode}",
        uri=True,
        timeout=max(0.0, timeout),
        isolation_level=None,
        check_same_thread=False,
    )
    # SQLite does not check that a text is UTF-8, and sqlite3 would refuse a whole result for one damaged text.
    connection.text_factory = bytes
    try:
        connection.executescript(";".join([_SETTINGS, *settings]))
    except BaseException:
        connection.close()
        raise
    return connection


def _wait_at_most(connection: sqlite3.Connection, seconds: float) -> None:
    connection.execute(f"PRAGMA busy_timeout = {max(0, int(seconds * 1000))}")


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    try:
        connection.execute(begin)
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
