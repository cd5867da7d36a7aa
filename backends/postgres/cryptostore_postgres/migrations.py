"""Bringing a database's tables up to date, once, and refusing those of a newer program."""

from __future__ import annotations

import time
import zlib
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final, NamedTuple

from psycopg.errors import InsufficientPrivilege, InvalidSchemaName, UndefinedTable
from psycopg.sql import SQL, Identifier

from cryptostore.errors import ConfigurationError, SchemaError
from cryptostore.store.interface import Schema

from .checks import refuse_unsafe
from .connecting import Connection, Policies
from .options import Migrate, PostgresOptions
from .transactions import unlimited

# Whatever the role's default: what another program did while this one waited for its turn must be seen.
_READ_COMMITTED: Final = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"
# Whatever the role's: the call's time is the limit. The server must not go on long after it, when the client
# has given up, and keep the locks on the tables.
_LIMITS: Final = (
    b"SELECT pg_catalog.set_config('statement_timeout', %s, true), pg_catalog.set_config('lock_timeout', '0', true)"
)
_LOCK: Final = "SELECT pg_catalog.pg_advisory_xact_lock(%s::pg_catalog.int8)"
# Not to_regclass: after a wait for the lock its cache still knows that there was no such table.
_HAS_TABLES: Final = (
    "SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname OPERATOR(pg_catalog.=) %s::pg_catalog.name "
    "AND tablename OPERATOR(pg_catalog.=) 'schema_version'"
)
# CREATE SCHEMA IF NOT EXISTS asks for the right to create even where the schema is there.
_HAS_SCHEMA: Final = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.=) %s::pg_catalog.name"

_NONE_YET: Final = Schema(version=0, min_compatible=0)


class Migration(NamedTuple):
    """One numbered file of statements."""

    version: int
    name: str
    text: str


def read_schema(connection: Connection, name: str) -> Schema:
    """The schema version of the tables, which are there."""
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

    def ensure(self, connection: Connection, options: PostgresOptions) -> Policies | None:
        """Check the tables and, unless told not to, create or migrate them in one transaction.

        Returns the policies that are in force for this role.

        Raises SchemaTooNew before anything is touched, SchemaError where the tables are missing or old and must stay
        so, ConfigurationError where they must not be used as they are.
        """
        policies = refuse_unsafe(connection, options)
        present = _first_look(connection, options.schema)
        if self._is_usable(present, options):
            return policies
        if options.migrate is Migrate.NEVER:
            raise self._refusal(present, options)
        with connection.transaction():
            connection.execute(_READ_COMMITTED)
            connection.execute(
                _LIMITS + unlimited(connection), [str(max(1, int(1000 * (connection.ends - time.monotonic()))))]
            )
            # Held to the end of the transaction, so that programs that start together migrate once.
            connection.execute(_LOCK, [_lock_number(options.schema)])
            _create_schema(connection, options)
            # What another role has created since the first look.
            policies = refuse_unsafe(connection, options)
            present = _second_look(connection, options.schema)
            if not self._is_usable(present, options):
                self._migrate(connection, options.schema, present)
                policies = refuse_unsafe(connection, options)
        return policies

    def _is_usable(self, present: Schema, options: PostgresOptions) -> bool:
        place = f"the schema {options.schema!r} at {options.place}"
        present.refuse_if_newer(self.latest, place, "matrix-cryptostore-postgres")
        return present.version >= self.latest

    def _refusal(self, present: Schema, options: PostgresOptions) -> SchemaError:
        found = f"have version {present.version}, and this program needs {self.latest}"
        return SchemaError(
            f"the tables in schema {options.schema!r} at {options.place} {found if present.version else 'are missing'}"
            "; with migrate=never, as in commands that only look, that stays so: run `cryptostore migrate` once, or "
            "open the database with migrate=auto, as a role that owns the schema, then GRANT USAGE ON SCHEMA "
            f"{options.schema} and SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN "
            f"SCHEMA {options.schema} to this role"
        )

    def _migrate(self, connection: Connection, schema: str, present: Schema) -> None:
        for migration in self._all:
            if migration.version > present.version:
                # The text is a file of this package; only the checked name is put into it.
                statements = SQL(migration.text).format(schema=Identifier(schema))
                connection.execute(statements)


#: Those of this package. Read at import: an upgrade must not put newer files under a program that runs.
SHIPPED: Final = Migrations(resources.files(__package__).joinpath("migrations"))


def _first_look(connection: Connection, schema: str) -> Schema:
    # One round trip where there are tables. In a transaction, the error would end it.
    try:
        return read_schema(connection, schema)
    except (UndefinedTable, InvalidSchemaName):
        return _NONE_YET


def _second_look(connection: Connection, schema: str) -> Schema:
    has_tables = connection.execute(_HAS_TABLES, [schema]).fetchone() is not None
    return read_schema(connection, schema) if has_tables else _NONE_YET


def _create_schema(connection: Connection, options: PostgresOptions) -> None:
    if connection.execute(_HAS_SCHEMA, [options.schema]).fetchone() is not None:
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
