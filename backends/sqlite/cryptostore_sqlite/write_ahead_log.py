"""Telling whether a -wal belongs to the database file beside it.

SQLite takes any -wal that is whole for the file's own. Where a backup was put back beside the -wal of a killed program,
it would undo that without a word, or mix two states of the database.

So every transaction that changes something is counted in the header of the file (user_version), which is thereby in the
-wal, too. A file that is older than the beginning of its -wal lacks what was between them. And what backs up an open
database counts on in the header's schema_version, which a checkpoint takes from the -wal as it is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from . import files

_FRAME_HEADER_BYTES: Final = 24
_FIRST_PAGE: Final = (1).to_bytes(4)

#: The count begins again where a signed integer of 32 bits ends.
_COUNTS: Final = 2**31


class Header(NamedTuple):
    """What the header of a database file says: how many transactions it has seen, and how often its tables changed."""

    transactions: int
    schema: int


def count_transaction(connection: sqlite3.Connection) -> None:
    """Count the transaction that is open."""
    (count,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {(count + 1) % _COUNTS}")


def belongs(file: Header, logged: Sequence[Header]) -> bool:
    """Whether a -wal with these headers, the oldest first, can have been written for a file with this header."""
    first = logged[0]
    is_older = (file.transactions - (first.transactions - 1)) % _COUNTS >= _COUNTS // 2
    # One less: the first transaction in the -wal may be a VACUUM, or make an index.
    return not is_older and file.schema in {first.schema - 1, *(header.schema for header in logged)}


def header_of(connection: sqlite3.Connection) -> Header:
    """The header that a connection sees."""
    return Header(*(connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("user_version", "schema_version")))


def logged_headers(path: Path) -> list[Header]:
    """The headers in the -wal of the database at `path`, the oldest first. SQLite has no locks on that file."""
    try:
        with files.beside(path, "-wal").open("rb") as log:
            return [_header(page) for page in _first_pages(log)]
    except OSError:
        # SQLite says what is wrong with it.
        return []


def _first_pages(log: BinaryIO) -> Iterator[bytes]:
    beginning = log.read(files.LOG_HEADER_BYTES)
    page_bytes, salts = int.from_bytes(beginning[8:12]), beginning[16:24]
    # Frames with other salts are left from before the -wal began again.
    while (frame := log.read(_FRAME_HEADER_BYTES))[8:16] == salts != b"":
        page = log.read(page_bytes)
        if frame[:4] == _FIRST_PAGE and len(page) == page_bytes:
            yield page


def _header(page: bytes) -> Header:
    return Header(int.from_bytes(page[60:64]), int.from_bytes(page[40:44]))
