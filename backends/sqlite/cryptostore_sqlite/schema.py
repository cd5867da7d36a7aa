"""The tables: numbered migrations, applied once, and never to a database that is not ours or is too new."""

from __future__ import annotations

import sqlite3
from importlib.resources import files
from pathlib import Path
from typing import Final

from cryptostore import ConfigurationError, Schema, SchemaError, SchemaTooNew

#: What the first migration sets; it tells our files from those of other programs.
APPLICATION_ID: Final = int.from_bytes(b"mxcs")

# Read at import: an upgrade of the package must not put newer files under a program that runs.
_MIGRATIONS: Final = tuple(
    entry.read_text(encoding="utf-8")
    for entry in sorted((files(__package__) / "migrations").iterdir(), key=lambda entry: entry.name)
    if entry.name.endswith(".sql")
)

#: The version that a database has after every migration. Migration n is the n-th file.
KNOWN_VERSION: Final = len(_MIGRATIONS)


def inspect(connection: sqlite3.Connection, path: Path) -> Schema | None:
    """The schema of our database, or None for an empty one. Only reads.

    Raises SchemaTooNew, SchemaError for a damaged one, ConfigurationError for another program's.
    """
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application_id != APPLICATION_ID:
        if tables or application_id:
            raise ConfigurationError(
                f"{path} is another program's SQLite database; give a file of its own in the database URL. The keys in "
                "matrix-nio's own store are copied with: cryptostore import-nio"
            )
        return None
    return _refuse_too_new(current(connection), path)


def current(connection: sqlite3.Connection) -> Schema:
    """The schema of our database. Raises SchemaError."""
    row = connection.execute("SELECT version, min_compatible FROM schema_version").fetchone()
    if row is None:
        raise SchemaError("the database has lost its schema version; restore a backup, or choose another file")
    return Schema(*row)


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the tables up to date, inside a transaction that has the write lock. Raises what `inspect` raises."""
    # Looked at again, because another program may have migrated since.
    found = inspect(connection, path)
    for migration in _MIGRATIONS[found.version if found else 0 :]:
        for statement in _statements(migration):
            connection.execute(statement)


def _refuse_too_new(found: Schema, path: Path) -> Schema:
    if found.min_compatible > KNOWN_VERSION:
        raise SchemaTooNew(
            f"{path} has schema {found.version}, which needs a program that knows schema {found.min_compatible} or "
            f"newer; this one knows {KNOWN_VERSION}: upgrade matrix-cryptostore-sqlite. Nothing was changed"
        )
    return found


def _statements(script: str) -> list[str]:
    # Not executescript(), which would commit the transaction that is open.
    statements = [""]
    for line in script.splitlines(keepends=True):
        statements[-1] += line
        if sqlite3.complete_statement(statements[-1]):
            statements.append("")
    return statements[:-1]
