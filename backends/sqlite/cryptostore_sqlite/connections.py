"""Connections to one database file: one that writes, under a lock, and as many that read as there are readers."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from cryptostore import BackendUnavailable, StoreClosed
from cryptostore.logs import logger
from cryptostore.store.turns import Turns

from . import files, opening
from .connecting import connect, roll_back, transaction, wait_at_most
from .errors import is_busy, is_read_only, mapped_errors, name_of
from .opened import OpenFile
from .schema import SHIPPED, Migrations
from .write_ahead_log import count_transaction

#: How many idle connections for reading are kept.
_IDLE_READERS: Final = 4

#: How long the writer waits for readers before it leaves a checkpoint to the next write.
_CHECKPOINT_SECONDS: Final = 0.1

_log: Final = logger(__name__)


class Connections:
    """The open database at `path`, a file that exists, in WAL mode, its tables up to date.

    A file that cannot be written opens as well if its tables are up to date. A process that is forked off while the
    database is open cannot use it. Raises ConfigurationError, SchemaError, BackendUnavailable, StorageFull.
    """

    def __init__(self, path: Path, timeout: float, migrations: Migrations = SHIPPED) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._idle_readers: list[sqlite3.Connection] = []
        self._closed = False
        self._timeout = timeout
        self._turns = Turns()
        self._file = OpenFile(path)
        # A killed program that left a -wal behind may have deleted rows without erasing them.
        self._checkpoint_is_due = files.has_write_ahead_log(path)
        self._checkpoint_was_busy = False
        with mapped_errors(path, opening=True):
            self._writer = opening.open_writer(path, timeout, migrations)
        self._writer_is_open = True
        self._file.has_begun()

    @contextmanager
    def reading(self, timeout: float) -> Iterator[sqlite3.Connection]:
        """One snapshot for all the statements of a block. Waits for no writer, and `timeout` seconds for a recovery."""
        reader = self._take_reader(timeout)
        try:
            with mapped_errors(self._path):
                wait_at_most(reader, timeout)
                with transaction(reader, "BEGIN"):
                    yield reader
        finally:
            self._give_back(reader)

    @contextmanager
    def writing(
        self, timeout: float, *, opening: bool = False, checkpoint: bool = False
    ) -> Iterator[sqlite3.Connection]:
        """One transaction, alone on the database from its beginning and durable at its end.

        Raises BackendUnavailable if others write for longer than `timeout` seconds. With `opening`, a file that cannot
        be written is a ConfigurationError. With `checkpoint`, all moves into the database file, which is then whole
        without its -wal, and what the transaction deletes stays in neither.
        """
        with mapped_errors(self._path, opening=opening), self._the_writer(timeout) as writer:
            # Not a block of its own: an interrupt at its end would let others write before the transaction is over.
            try:
                writer.execute("BEGIN IMMEDIATE")
                before = writer.total_changes
                yield writer
                if writer.total_changes > before:
                    count_transaction(writer)
                writer.execute("COMMIT")
            except BaseException:
                roll_back(writer)
                raise
            self._checkpoint_is_due |= checkpoint
            if self._checkpoint_is_due:
                self._checkpoint(writer)

    def is_writable(self, timeout: float) -> bool:
        """Ask the file, through a new connection. Waits for no writer."""
        self._check()
        with mapped_errors(self._path), closing(connect(self._path, timeout)) as connection:
            wait_at_most(connection, 0)
            try:
                # Not BEGIN IMMEDIATE, which begins to read where it may not write.
                connection.execute("UPDATE ownership SET epoch = epoch WHERE FALSE")
            except sqlite3.OperationalError as error:
                if is_busy(error) or is_read_only(error):
                    return is_busy(error)
                raise
            return True

    def close(self) -> None:
        """Close every connection that is idle; those in use when they come back.

        Waits for who writes, as long as the database was given to open. With the last connection, SQLite removes -wal
        and -shm.
        """
        # Closing inherited connections after a fork would interfere with those of the parent.
        if self._file.is_inherited():
            return
        with self._guard:
            self._closed = True
            for reader in self._idle_readers:
                reader.close()
        # Not for ever: what an interrupt ended in the middle may keep its turn for as long as its error is looked at.
        self._close_writer(self._timeout)

    def _close_writer(self, timeout: float) -> None:
        with self._turns.one(timeout) as is_in, mapped_errors(self._path):
            if is_in and self._writer_is_open:
                if self._checkpoint_is_due:
                    self._checkpoint(self._writer)
                self._writer.close()
                self._file.forget()
                self._writer_is_open = False

    def _check(self) -> None:
        try:
            self._file.check()
        except BackendUnavailable:
            # SQLite has removed -wal and -shm if it was closed.
            if not self._closed:
                raise
        if self._closed:
            raise StoreClosed(f"the database {self._path} was closed; open it again to use it")

    def _take_reader(self, timeout: float) -> sqlite3.Connection:
        with self._guard:
            # Inside, or a reader could be taken that `close` has closed.
            self._check()
            if self._idle_readers:
                return self._idle_readers.pop()
        with mapped_errors(self._path):
            return connect(self._path, timeout, "PRAGMA query_only = ON")

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
        try:
            with self._turns.one(timeout) as is_in:
                if not is_in:
                    raise BackendUnavailable(
                        f"other threads of this process wrote to {self._path} until the deadline", outcome_unknown=False
                    )
                self._check()
                wait_at_most(self._writer, ends - time.monotonic())
                yield self._writer
        finally:
            # After the turn: whoever closed before its end may have waited for it in vain, and nobody can after it.
            if self._closed:
                self._close_writer(0)

    def _checkpoint(self, writer: sqlite3.Connection) -> None:
        """Move all into the database file, where deleted rows are written over with zeros, and empty the -wal file."""
        try:
            # A reader that was waited for in vain may stay: not every write waits for it.
            wait_at_most(writer, 0 if self._checkpoint_was_busy else _CHECKPOINT_SECONDS)
            (busy, _, _) = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            # The transaction is durable already, so this must not make it look as if it had failed.
            if not is_read_only(error):
                _log.warning(
                    "cannot empty %s-wal, where deleted rows may still be (%s); the next write tries again",
                    self._path,
                    name_of(error),
                )
        else:
            self._checkpoint_is_due = self._checkpoint_was_busy = bool(busy)
