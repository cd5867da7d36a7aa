"""Bringing a database's tables up to date, once, and refusing those of a newer program."""

from __future__ import annotations

import zlib
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final, NamedTuple

from psycopg.errors import InsufficientPrivilege
from psycopg.sql import SQL, Identifier

from cryptostore.errors import ConfigurationError, SchemaError, SchemaTooNew
from cryptostore.interface import Schema

from .connections import Connection
from .options import Migrate, PostgresOptions

# Whatever the role's default: what another program did while this one waited for its turn must be seen.
_READ_COMMITTED: Final = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"
# Whatever the role's: the call's deadline is the limit. The server must not go on long after it, when nobody waits for
# the outcome any more, and keep the locks on the tables.
_LIMITS: Final = "SELECT set_config('statement_timeout', %s, true), set_config('lock_timeout', '0', true)"

_NONE_YET: Final = Schema(version=0, min_compatible=0)


class Migration(NamedTuple):
    """One numbered file of statements."""

    version: int
    name: str
    text: str


def read_schema(connection: Connection, name: str) -> Schema:
    """The schema version of the tables; version 0 where there are none."""
    # Not to_regclass: after a wait for the migrations' lock its cache still knows that there was no such table.
    found = connection.execute(
        "SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = %s AND tablename = 'schema_version'", [name]
    ).fetchone()
    if found is None:
        return _NONE_YET
    statement = SQL("SELECT version, min_compatible FROM {}").format(Identifier(name, "schema_version"))
    row = connection.execute(statement).fetchone()
    if row is None:
        raise SchemaError(f"the table {name}.schema_version is empty; restore the schema from a backup")
    return Schema(*row)


class Migrations:
    """The numbered SQL files of a folder, each of which brings the tables from one version to the next."""

    def __init__(self, folder: Traversable) -> None:
        #: In the order of their versions.
        self._all: Final = sorted(
            Migration(int(file.name.partition("_")[0]), file.name, file.read_text("utf-8"))
            for file in folder.iterdir()
            if file.name.endswith(".sql")
        )
        #: The schema that this program is written for.
        self.latest: Final = self._all[-1].version

    def ensure(self, connection: Connection, options: PostgresOptions) -> None:
        """Check the tables and, unless told not to, create or migrate them in one transaction.

        Raises SchemaTooNew before anything is touched, SchemaError where the tables are missing or old and must stay
        so.
        """
        present = read_schema(connection, options.schema)
        if self._is_usable(present, options):
            return
        if options.migrate is Migrate.NEVER:
            raise self._refusal(present, options)
        with connection.transaction():
            connection.execute(_READ_COMMITTED)
            connection.execute(_LIMITS, [str(max(1, int(1000 * options.common.deadline)))])
            # Held to the end of the transaction, so that programs that start together migrate once.
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_lock_number(options.schema)])
            present = read_schema(connection, options.schema)
            if not self._is_usable(present, options):
                self._migrate(connection, options, present)

    def _is_usable(self, present: Schema, options: PostgresOptions) -> bool:
        if present.min_compatible > self.latest:
            raise SchemaTooNew(
                f"the schema {options.schema!r} at {options.place} has version {present.version}, which programs "
                f"before {present.min_compatible} must not touch; this one knows {self.latest}: upgrade "
                "matrix-cryptostore-postgres"
            )
        return present.version >= self.latest

    def _refusal(self, present: Schema, options: PostgresOptions) -> SchemaError:
        found = f"have version {present.version}, and this program needs {self.latest}"
        return SchemaError(
            f"the tables in schema {options.schema!r} at {options.place} {found if present.version else 'are missing'}"
            "; migrate=never forbids to change that: open the database once with migrate=auto and a role that owns the "
            f"schema, then GRANT USAGE ON SCHEMA {options.schema} and SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN "
            f"SCHEMA {options.schema} to this role"
        )

    def _migrate(self, connection: Connection, options: PostgresOptions, present: Schema) -> None:
        _create_schema(connection, options)
        for migration in self._all:
            if migration.version > present.version:
                # The text is a file of this package; only the checked name is put into it.
                statements = SQL(migration.text).format(schema=Identifier(options.schema))
                connection.execute(statements)


#: Those of this package. Read at import: an upgrade must not put newer files under a program that runs.
SHIPPED: Final = Migrations(resources.files(__package__).joinpath("migrations"))


def _create_schema(connection: Connection, options: PostgresOptions) -> None:
    # CREATE SCHEMA IF NOT EXISTS asks for the right to create even where the schema is there.
    found = connection.execute("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %s", [options.schema]).fetchone()
    if found is not None:
        return
    try:
        connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(options.schema)))
    except InsufficientPrivilege as error:
        raise ConfigurationError(
            f"the role {connection.info.user!r} may not create the schema {options.schema!r} at {options.place}; let "
            f'the database\'s owner run: CREATE SCHEMA {options.schema} AUTHORIZATION "{connection.info.user}"'
        ) from error


def _lock_number(schema: str) -> int:
    return zlib.crc32(f"matrix-cryptostore {schema}".encode())
