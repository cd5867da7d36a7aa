"""One connection: how it is made and set, how long it waits, and its transactions."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from cryptostore import ConfigurationError

# On macOS, what was only synchronized may still be in the disk's own memory; other systems know no fullfsync. Sorting
# large results must not spill keys into temporary files: those are neither private nor erased.
SETTINGS: Final = """
    PRAGMA encoding = 'UTF-8';
    PRAGMA synchronous = FULL;
    PRAGMA fullfsync = ON;
    PRAGMA secure_delete = ON;
    PRAGMA temp_store = MEMORY;
"""

_FULL: Final = 2


def connect(path: Path, timeout: float, *settings: str, mode: str = "rw") -> sqlite3.Connection:
    """Open the database file, which exists. `mode` is SQLite's: "rw", or "ro" for one that changes nothing."""
    connection = sqlite3.connect(
        uri_of(path, mode),
        uri=True,
        timeout=max(0.0, timeout),
        isolation_level=None,
        check_same_thread=False,
    )
    # SQLite does not check that a text is UTF-8, and sqlite3 would refuse a whole result for one damaged text.
    connection.text_factory = bytes
    try:
        connection.executescript(";".join([SETTINGS, *settings]))
        _refuse_unsafe_settings(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def uri_of(path: Path, mode: str) -> str:
    """The file as a URI of SQLite."""
    return f"file://{quote(os.fsencode(path))}?mode={mode}"


def _refuse_unsafe_settings(connection: sqlite3.Connection) -> None:
    # SQLite ignores a setting that it cannot make.
    if connection.execute("PRAGMA synchronous").fetchone() != (_FULL,):
        raise ConfigurationError("this SQLite does not wait for the disk (synchronous=FULL); use another build of it")


def wait_at_most(connection: sqlite3.Connection, seconds: float) -> None:
    """From now on, wait so long for the locks of others."""
    connection.execute(f"PRAGMA busy_timeout = {max(0, int(seconds * 1000))}")


@contextmanager
def transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    """Commit what a block does, or nothing of it if the block fails. `begin` is the statement that begins it."""
    try:
        connection.execute(begin)
        yield
        connection.execute("COMMIT")
    except BaseException:
        roll_back(connection)
        raise


def roll_back(connection: sqlite3.Connection) -> None:
    """Undo the transaction that is open, if one is: SQLite has rolled back by itself after some errors."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")
