"""The golden databases that programs of every released schema left behind, as SQL that any driver loads.

`python tests/support/postgres_golden.py` makes the one of this program's schema, with the tests' server and pg_dump.
That is done once, when its migration is about to be released: the file is committed, never made again, and read by
every later version's tests.
"""

from __future__ import annotations

import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psycopg
from psycopg.sql import SQL, Identifier

from clock import to_microseconds
from cryptostore import open_backend
from cryptostore_contract.golden import fill
from cryptostore_postgres.migrations import SHIPPED
from postgres_database import PostgresDatabase, own_database
from postgres_server import PostgresServer

FOLDER: Final = Path(__file__).parents[2] / "backends" / "postgres" / "tests" / "golden"

#: The name of the PostgreSQL schema in the files.
SCHEMA: Final = "cryptostore_golden"

OWNER: Final = "golden"
INCARNATION: Final = 2**63 - 1
SINCE: Final = datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC)

#: What pg_dump sets, and says, that differs from one version to the next, or that loading does without.
_NOISE: Final = re.compile(
    rb"^(--.*|\\.*|SELECT pg_catalog\.set_config.*|SET (?!check_function_bodies|client_encoding).*)\n", re.MULTILINE
)


def golden(version: int) -> Path:
    """What the program of this schema left behind."""
    return FOLDER / f"schema_{version}.sql"


def load(database: PostgresDatabase, version: int, schema: str) -> None:
    """Put a golden database under another name, as the role that backends use, which then owns it."""
    statements = golden(version).read_bytes().replace(SCHEMA.encode(), schema.encode())
    with psycopg.connect(database.url(schema).partition("?")[0]) as connection:
        connection.execute(statements)


def make(database: PostgresDatabase, schema: str) -> None:
    """Write the golden records with today's program."""
    with open_backend(database.url(schema), owner=OWNER) as backend:
        fill(backend)
    # When it was made is no part of it, nor what was drawn for its owner.
    with database.connect() as connection:
        statement = SQL("UPDATE {} SET since = %s, written_at = %s, incarnation = %s").format(
            Identifier(schema, "ownership")
        )
        connection.execute(statement, [to_microseconds(SINCE), to_microseconds(SINCE), INCARNATION])


def dump(server: PostgresServer, database: PostgresDatabase) -> bytes:
    """The golden schema as SQL."""
    command = [str(server.binaries / "pg_dump"), "--inserts", "--no-owner", "--no-privileges", f"--schema={SCHEMA}"]
    url = database.url(SCHEMA).partition("?")[0]
    environment = os.environ | {"PGTZ": "UTC"}
    answer = subprocess.run([*command, url], check=True, capture_output=True, env=environment).stdout
    return re.sub(rb"\n{3,}", b"\n\n", _NOISE.sub(b"", answer)).lstrip()


if __name__ == "__main__":
    target = golden(SHIPPED.latest)
    if target.exists():
        raise SystemExit(
            f"{target} is there already, and the databases of users do not change because ours would be made again"
        )
    server = PostgresServer()
    try:
        database = own_database(server)
        make(database, SCHEMA)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(dump(server, database))
    finally:
        server.close()
    print(target)  # noqa: T201  # a script that is run by hand
