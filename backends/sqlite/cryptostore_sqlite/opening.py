"""The first connection: it looks at what there is, makes the tables, and begins the write-ahead log."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from cryptostore import ConfigurationError, Schema

from . import files
from .connecting import connect, transaction, uri_of, wait_at_most
from .errors import is_busy
from .schema import Migrations
from .write_ahead_log import Header, belongs, count_transaction, header_of, logged_headers

_RETRY_SECONDS: Final = 0.01


def open_writer(path: Path, timeout: float, migrations: Migrations) -> sqlite3.Connection:
    """The connection that writes, to a database in WAL mode whose tables are up to date."""
    ends = time.monotonic() + timeout
    found = inspect(path, timeout, migrations)
    writer = connect(path, ends - time.monotonic())
    try:
        if found is None or found.version < migrations.known_version:
            wait_at_most(writer, ends - time.monotonic())
            _migrate(writer, path, migrations)
        # After the first tables, which are so in the database file at once: without them, a copy that lacks its -wal
        # would look like a new database.
        _use_write_ahead_log(writer, path, ends)
    except BaseException:
        writer.close()
        raise
    return writer


def _migrate(writer: sqlite3.Connection, path: Path, migrations: Migrations) -> None:
    # First a transaction that changes no table: the -wal must not begin with tables that the database file lacks.
    with transaction(writer, "BEGIN IMMEDIATE"):
        count_transaction(writer)
    with transaction(writer, "BEGIN IMMEDIATE"):
        migrations.migrate(writer, path)


def inspect(path: Path, timeout: float, migrations: Migrations) -> Schema | None:
    """What `Migrations.inspect` says, without a change to a file that is not ours to use."""
    # A connection that may write, and is the last to close, moves what a killed program left in the -wal file into the
    # database. One that only reads does not, but leaves a -wal and -shm behind where there were none.
    mode = "ro" if files.has_write_ahead_log(path) else "rw"
    refuse_anothers_log(path)
    with (
        closing(connect(path, timeout, "PRAGMA query_only = ON", mode=mode)) as connection,
        # One snapshot: tables that another program makes meanwhile must not look like a stranger's.
        transaction(connection, "BEGIN"),
    ):
        found = migrations.inspect(connection, path)
        if found is None:
            _refuse_lost_log(connection, path)
        return found


def refuse_anothers_log(path: Path) -> None:
    """Raise ConfigurationError for a -wal that was written for another file than the one that it is beside."""
    logged = logged_headers(path)
    file = _header_of_file(path)
    # A -wal that has changed meanwhile is another program's, which has looked at it.
    if logged and file and not belongs(file, logged) and logged_headers(path) == logged:
        raise ConfigurationError(
            f"{path}-wal was not written for this {path}: was a backup put back beside it? If so, move {path}-wal and "
            f"{path}-shm away, and open it again; if not, put back the {path} that belongs to them. Nothing was changed"
        )


def _header_of_file(path: Path) -> Header | None:
    # Immutable, so that SQLite looks at the file alone and takes no lock.
    with closing(sqlite3.connect(uri_of(path, "ro&immutable=1"), uri=True)) as connection:
        try:
            return header_of(connection)
        except sqlite3.DatabaseError:
            # Amid a checkpoint, for one, the file may be shorter than its header says.
            return None


def _refuse_lost_log(connection: sqlite3.Connection, path: Path) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    if mode == b"wal":
        raise ConfigurationError(
            f"{path} was used with a -wal file, and has no tables without it: was it copied while it was open? Put "
            f"{path}-wal back beside it, or copy the database as docs/backups.md says, or choose another file"
        )


def _use_write_ahead_log(connection: sqlite3.Connection, path: Path, ends: float) -> None:
    # SQLite does not wait here for others that may be doing the same.
    wait_at_most(connection, 0)
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
    # SQLite makes it at the first look.
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
