"""The golden databases that programs of every released schema left behind, as SQL."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import psycopg

from postgres_database import PostgresDatabase

_FOLDER: Final = Path(__file__).parents[2] / "backends" / "postgres" / "tests" / "golden"

#: The name of the PostgreSQL schema in the files.
SCHEMA: Final = "cryptostore_golden"


def golden(version: int) -> Path:
    """What the program of this schema left behind."""
    return _FOLDER / f"schema_{version}.sql"


def load(database: PostgresDatabase, version: int, schema: str) -> None:
    """Put a golden database under another name, as the role that backends use, which then owns it."""
    statements = golden(version).read_bytes().replace(SCHEMA.encode(), schema.encode())
    with psycopg.connect(database.url(schema).partition("?")[0]) as connection:
        connection.execute(statements)
