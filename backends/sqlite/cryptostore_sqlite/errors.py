"""The one boundary where SQLite's errors become ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cryptostore import BackendUnavailable, ConfigurationError, CryptoStoreError, SchemaError, StorageFull

#: An extended result code holds the primary one in its lowest byte.
_PRIMARY: Final = 0xFF

#: SQLite reports ENOSPC as SQLITE_FULL, but a quota (EDQUOT) and a limit on file sizes (EFBIG) as failed writes. None
#: of them leaves a commit open: a transaction is committed by the last frame that it writes.
_NO_ROOM: Final = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_TOOBIG}
)

_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_NO_ACCESS: Final = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM})
_PASSING: Final = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT})
#: What a STRICT table says to a value that is not of its column's type, or breaks its checks.
_REFUSED: Final = frozenset({sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH})


@contextmanager
def mapped_errors(path: Path, *, opening: bool = False) -> Iterator[None]:
    """Raise this project's errors for SQLite's.

    While `opening`, a file without access is the user's to correct (ConfigurationError); later on it is a database that
    was there and may come back (BackendUnavailable).
    """
    try:
        yield
    except sqlite3.Error as error:
        raise _translate(error, path, opening) from error


def is_busy(error: sqlite3.Error) -> bool:
    """Whether somebody else's lock is the reason."""
    return _code(error) & _PRIMARY in _BUSY


def is_read_only(error: sqlite3.Error) -> bool:
    """Whether the database cannot be written."""
    return _code(error) & _PRIMARY == sqlite3.SQLITE_READONLY


def name_of(error: sqlite3.Error) -> str:
    """SQLite's name for what happened. Its texts are not shown: they may quote what is stored."""
    return getattr(error, "sqlite_errorname", type(error).__name__)


def _translate(error: sqlite3.Error, path: Path, opening: bool) -> CryptoStoreError:
    code, name = _code(error), name_of(error)
    primary = code & _PRIMARY
    if code in _NO_ROOM:
        return StorageFull(
            f"there is no room for {path} ({name}): the disk is full, or over a quota or a size limit; make room, then "
            "try again"
        )
    if primary in _BUSY:
        # A commit in a write-ahead log does not wait, so it was the transaction that could not begin.
        return BackendUnavailable(
            f"{path} was in use by another program until the deadline ({name})", outcome_unknown=False
        )
    if primary in _NO_ACCESS:
        return _no_access(path, name, opening)
    if primary in _PASSING:
        return BackendUnavailable(
            f"{path} could not be read or written ({name}); look at the disk and the system's log"
        )
    if primary == sqlite3.SQLITE_NOTADB:
        return ConfigurationError(f"{path} is not a SQLite database; correct the path in the database URL")
    if primary == sqlite3.SQLITE_CORRUPT:
        return ConfigurationError(
            f"{path} is damaged; stop every program that uses it, then restore a backup, or save what is left with "
            f"the .recover command of the sqlite3 program"
        )
    # What the driver refuses by itself, such as a value that it cannot bind, has no code of SQLite's.
    if primary in _REFUSED or not hasattr(error, "sqlite_errorcode"):
        return CryptoStoreError(f"SQLite refused a statement for {path} ({name})")
    return SchemaError(
        f"{path} does not have the tables that this program made ({name}); restore a backup, or choose another file"
    )


def _no_access(path: Path, name: str, opening: bool) -> CryptoStoreError:
    if opening:
        return ConfigurationError(
            f"cannot open {path} ({name}); this user must be able to write to the file and to its folder, where SQLite "
            "keeps the -wal and -shm files"
        )
    return BackendUnavailable(f"{path} cannot be written ({name}); was its disk or folder made read-only, or removed?")


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR))
