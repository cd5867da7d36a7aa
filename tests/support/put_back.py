"""A backup of a whole database, put back as an operator does: what came after it is gone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import psycopg
from psycopg.sql import SQL, Identifier

_TABLES: Final = ("account", "ownership", "record")


def backup_of(url: str) -> Callable[[], None]:
    """Make a backup of a database now. Calling what is returned puts it back, as often as one likes."""
    return _sqlite_backup(url) if urlsplit(url).scheme == "sqlite" else _postgres_backup(url)


def _sqlite_backup(url: str) -> Callable[[], None]:
    file = Path(urlsplit(url).path)
    kept = file.with_suffix(".backup")
    with closing(sqlite3.connect(file)) as live, closing(sqlite3.connect(kept)) as copy:
        live.backup(copy)

    def put_back() -> None:
        for end in ("-wal", "-shm"):
            Path(f"{file}{end}").unlink(missing_ok=True)
        mode = file.stat().st_mode
        file.write_bytes(kept.read_bytes())
        file.chmod(mode)

    return put_back


def _postgres_backup(url: str) -> Callable[[], None]:
    parts = urlsplit(url)
    schema = parse_qs(parts.query)["schema"][0]
    place = parts._replace(query="").geturl()
    tables = [SQL(".").join([Identifier(schema), Identifier(name)]) for name in _TABLES]
    with psycopg.connect(place) as connection, connection.cursor() as cursor:
        copies = []
        for table in tables:
            with cursor.copy(SQL("COPY {} TO STDOUT (FORMAT binary)").format(table)) as rows:
                copies.append(b"".join(map(bytes, rows)))

    def put_back() -> None:
        with psycopg.connect(place) as connection, connection.cursor() as cursor:
            cursor.execute(SQL("TRUNCATE {}").format(SQL(", ").join(tables)))
            for table, copy in zip(tables, copies, strict=True):
                with cursor.copy(SQL("COPY {} FROM STDIN (FORMAT binary)").format(table)) as rows:
                    rows.write(copy)

    return put_back
