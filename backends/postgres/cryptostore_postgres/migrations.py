"""Bringing a database's tables up to date, once, and refusing those of a newer program."""

from __future__ import annotations

import zlib
from importlib import resources
from typing import Final, NamedTuple

from psycopg.errors import InsufficientPrivilege
from psycopg.sql import SQL, Identifier

from cryptostore.errors import ConfigurationError, SchemaError, SchemaTooNew
from cryptostore.interface import Schema

from .connections import Connection
from .options import Migrate, PostgresOptions

_NONE_YET: Final = Schema(version=0, min_compatible=0)


class Migration(NamedTuple):
    """One numbered file of statements."""

    version: int
    name: str
    text: str


def _migrations() -> list[Migration]:
    files = list(resources.files(__package__).joinpath("migrations").iterdir())
    found = [
        Migration(int(file.name.partition("_")[0]), file.name, file.read_text("utf-8"))
        for file in files
        if file.name.endswith(".sql")
    ]
    return sorted(found)


#: In the order of their versions.
MIGRATIONS: Final = _migrations()

#: The schema that this program is written for.
LATEST: Final = MIGRATIONS[-1].version


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


def ensure_schema(connection: Connection, options: PostgresOptions) -> None:
    """Check the tables and, unless told not to, create or migrate them in one transaction.

    Raises SchemaTooNew before anything is touched, SchemaError where the tables are missing or old and must stay so.
    """
    if _is_usable(read_schema(connection, options.schema), options):
        return
    if options.migrate is Migrate.NEVER:
        raise SchemaError(
            f"the tables in schema {options.schema!r} at {options.place} are missing or old, and migrate=never forbids "
            "to change them; open the database once with migrate=auto and a role that owns the schema, then GRANT "
            f"USAGE ON SCHEMA {options.schema} and SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "
            f"{options.schema} to this role"
        )
    with connection.transaction():
        # Held to the end of the transaction, so that programs that start together migrate once.
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_lock_number(options.schema)])
        present = read_schema(connection, options.schema)
        if not _is_usable(present, options):
            _migrate(connection, options, present)


def _is_usable(present: Schema, options: PostgresOptions) -> bool:
    if present.min_compatible > LATEST:
        raise SchemaTooNew(
            f"the schema {options.schema!r} at {options.place} has version {present.version}, which programs before "
            f"{present.min_compatible} must not touch; this one knows {LATEST}: upgrade matrix-cryptostore-postgres"
        )
    return present.version >= LATEST


def _migrate(connection: Connection, options: PostgresOptions, present: Schema) -> None:
    _create_schema(connection, options)
    for migration in MIGRATIONS:
        if migration.version > present.version:
            # The text is a file of this package; only the checked name is put into it.
            statements = SQL(migration.text).format(schema=Identifier(options.schema))
            connection.execute(statements)


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
