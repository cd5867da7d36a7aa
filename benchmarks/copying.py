"""What `cryptostore copy` takes from PostgreSQL to SQLite and back, beside the fastest way for such rows.

    python benchmarks/copying.py [--sessions N] [--runs N]

The command runs in a process of its own, whose start counts, and the comparison of every row, and its memory at the
highest. Beside it stand binary `COPY` and `executemany` of the very rows, in one transaction, without a comparison.
"""

from __future__ import annotations

import argparse
import base64
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from psycopg.sql import SQL, Identifier
from rich.console import Console
from rich.table import Table

from cryptostore import Account, Changes, InboundGroupSession, SyncToken, new_pickle_key, open_backend

# The database for tests is the one for measurements, too.
sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
from postgres_database import PostgresDatabase, provided_database

ALICE: Final = Account("@alice:example.org", "ALICEDEVICE")
KEY: Final = new_pickle_key()
BATCH: Final = 5_000
WHEN: Final = datetime(2026, 1, 1, tzinfo=UTC)


class Took(NamedTuple):
    """Seconds, and the most memory that the process had, in MiB; None where it was this one."""

    seconds: float
    mebibytes: float | None = None


def session(number: int) -> InboundGroupSession:
    """A session as large as a real one."""
    key = base64.b64encode(number.to_bytes(32, "big")).decode().rstrip("=")
    return InboundGroupSession(
        f"!room{number % 100}:example.org", key, key, os.urandom(165), key, (), 0, WHEN, signing_key_verified=False
    )


def fill(url: str, sessions: int) -> None:
    """Make the account with its sessions."""
    with open_backend(url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.apply(Changes([SyncToken("s1")]))
        for start in range(0, sessions, BATCH):
            store.apply(Changes([session(number) for number in range(start, min(start + BATCH, sessions))]))


def copied(source: str, destination: str) -> Took:
    """Run the command, and tell its time and memory."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CRYPTOSTORE_")}
    started = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "cryptostore", "copy", source, destination, "--watch", "0"], env=environment
    ) as running:
        _, status, usage = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        raise SystemExit(f"cryptostore copy ended with {running.returncode}")
    return Took(time.monotonic() - started, usage.ru_maxrss / 1024)


def raw_to_sqlite(database: PostgresDatabase, schema: str, file: Path) -> Took:
    """Bring the rows to SQLite with COPY and executemany."""
    started = time.monotonic()
    with database.connect() as connection, closing(sqlite3.connect(file)) as sqlite:
        sqlite.execute("PRAGMA journal_mode = wal")
        sqlite.execute("CREATE TABLE record (account_id INTEGER, key BLOB, value BLOB) STRICT")
        sqlite.execute("CREATE UNIQUE INDEX record_key ON record (account_id, key)")
        query = SQL("COPY (SELECT account_id, key, value FROM {} ORDER BY key) TO STDOUT (FORMAT BINARY)")
        with connection.cursor().copy(query.format(Identifier(schema, "record"))) as rows:
            rows.set_types(["int8", "bytea", "bytea"])
            with sqlite:
                sqlite.executemany("INSERT INTO record VALUES (?, ?, ?)", rows.rows())
    return Took(time.monotonic() - started)


def raw_to_postgres(database: PostgresDatabase, schema: str, file: Path) -> Took:
    """Bring the rows back with COPY, into a table like the one that they came from."""
    started = time.monotonic()
    with database.connect() as connection, closing(sqlite3.connect(file)) as sqlite:
        table = Identifier(schema, "raw_record")
        connection.execute(
            SQL("CREATE TABLE {} (account_id int8, key bytea, value bytea, PRIMARY KEY (account_id, key))").format(
                table
            )
        )
        with connection.cursor().copy(SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(table)) as rows:
            rows.set_types(["int8", "bytea", "bytea"])
            for row in sqlite.execute("SELECT account_id, key, value FROM record ORDER BY key"):
                rows.write_row(row)
        connection.execute(SQL("DROP TABLE {}").format(table))
    return Took(time.monotonic() - started)


def run(database: PostgresDatabase, folder: Path, sessions: int) -> Iterator[tuple[str, Took]]:
    """One run: there and back, with the command and without it."""
    schema = database.new_schema()
    postgres_url, sqlite_url = database.url(schema), f"sqlite:///{folder}/keys.db"
    try:
        fill(postgres_url, sessions)
        yield "raw, to SQLite", raw_to_sqlite(database, schema, folder / "raw.db")
        yield "cryptostore copy, to SQLite", copied(postgres_url, sqlite_url)
        yield "raw, to PostgreSQL", raw_to_postgres(database, schema, folder / "raw.db")
        yield "cryptostore copy, to PostgreSQL", copied(sqlite_url, postgres_url)
    finally:
        database.drop_schema(schema)


def main() -> None:
    """Measure, and show the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    taken: dict[str, list[Took]] = {}
    with provided_database() as database:
        for _ in range(given.runs):
            with tempfile.TemporaryDirectory() as folder:
                for name, took in run(database, Path(folder), given.sessions):
                    taken.setdefault(name, []).append(took)
    table = Table("what", "seconds", "rows a second", "MiB")
    for name, runs in taken.items():
        seconds = statistics.median(each.seconds for each in runs)
        memory = max((each.mebibytes for each in runs if each.mebibytes), default=None)
        rate = f"{given.sessions / seconds:,.0f}"
        table.add_row(name, f"{seconds:.2f}", rate, "" if memory is None else f"{memory:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
