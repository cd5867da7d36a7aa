"""The tables: numbered migrations, applied once, and never to a database that is not ours or is too new."""

from __future__ import annotations

import shlex
import sqlite3
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from cryptostore import ConfigurationError, Schema, SchemaError

#: What the first migration sets; it tells our files from those of other programs.
APPLICATION_ID: Final = int.from_bytes(b"mxcs")

#: Those that the first migration makes.
_TABLES: Final = frozenset({b"schema_version", b"account", b"ownership", b"record"})


class Migrations:
    """The numbered SQL files of a folder, each of which brings a database from one version to the next."""

    def __init__(self, folder: Traversable) -> None:
        files_in_order = sorted(folder.iterdir(), key=lambda entry: entry.name)
        self._scripts: Final = [
            entry.read_text(encoding="utf-8") for entry in files_in_order if entry.name.endswith(".sql")
        ]
        #: The version that a database has after every migration. Migration n is the n-th file.
        self.known_version: Final = len(self._scripts)

    def inspect(self, connection: sqlite3.Connection, path: Path) -> Schema | None:
        """The schema of our database, or None for an empty one. Only reads.

        Raises SchemaTooNew, SchemaError for a damaged one, ConfigurationError for another program's.
        """
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if application_id != APPLICATION_ID:
            if not application_id and _names(connection) >= _TABLES:
                raise ConfigurationError(
                    f"{path} has the tables of a store, but not its mark: was it made from an SQL dump, which leaves "
                    f"the mark out? If so, run: {_command(path)}"
                )
            if tables or application_id:
                raise ConfigurationError(
                    f"{path} is another program's SQLite database; give a file of its own in the database URL. The "
                    "keys in matrix-nio's own store are copied with: cryptostore import-nio"
                )
            return None
        found = current(connection)
        found.refuse_if_newer(self.known_version, str(path), "matrix-cryptostore-sqlite")
        return found

    def migrate(self, connection: sqlite3.Connection, path: Path) -> None:
        """Bring the tables up to date, inside a transaction that has the write lock. Raises what `inspect` raises."""
        # Looked at again, because another program may have migrated since.
        found = self.inspect(connection, path)
        for script in self._scripts[found.version if found else 0 :]:
            for statement in _statements(script):
                connection.execute(statement)


#: Those of this package. Read at import: an upgrade must not put newer files under a program that runs.
SHIPPED: Final = Migrations(files(__package__) / "migrations")


def current(connection: sqlite3.Connection) -> Schema:
    """The schema of our database. Raises SchemaError."""
    row = connection.execute("SELECT version, min_compatible FROM schema_version").fetchone()
    if row is None:
        raise SchemaError("the database's schema version is missing; restore a backup, or choose another file")
    return Schema(*row)


def _names(connection: sqlite3.Connection) -> set[bytes]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}


def _command(path: Path) -> str:
    return shlex.join(["sqlite3", str(path), f"PRAGMA application_id = {APPLICATION_ID}"])


def _statements(script: str) -> list[str]:
    # Not executescript(), which would commit the transaction that is open.
    statements = [""]
    for line in script.splitlines(keepends=True):
        statements[-1] += line
        if sqlite3.complete_statement(statements[-1]):
            statements.append("")
    return statements[:-1]
