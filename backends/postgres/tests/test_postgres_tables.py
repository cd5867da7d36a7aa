"""The tables: every row names its account, keys are ordered by their bytes, and nothing of ours is a function."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import psycopg
import pytest

from cryptostore_postgres import diagnosis_of_tables
from cryptostore_postgres.statements import TABLES
from postgres_database import PostgresDatabase

COLUMNS: Final = {
    "account": [("id", "bigint"), ("user_id", "text"), ("device_id", "text"), ("role", "name")],
    "ownership": [
        ("account_id", "bigint"),
        ("epoch", "bigint"),
        ("incarnation", "bigint"),
        ("sequence", "bigint"),
        ("owner", "text"),
        ("since", "bigint"),
        ("written_at", "bigint"),
    ],
    "record": [("account_id", "bigint"), ("key", "bytea"), ("value", "bytea")],
    "schema_version": [("version", "integer"), ("min_compatible", "integer"), ("one_row", "boolean")],
}

KEYS: Final = {
    "account": [["id"], ["user_id", "device_id"]],
    "ownership": [["account_id"]],
    "record": [["account_id", "key"]],
    "schema_version": [["one_row"]],
}


@pytest.fixture(scope="module")
def schema(postgres_database: PostgresDatabase) -> Iterator[str]:
    name = postgres_database.new_schema()
    postgres_database.open(name).close()
    yield name
    postgres_database.drop_schema(name)


@pytest.fixture(scope="module")
def connection(postgres_database: PostgresDatabase) -> Iterator[psycopg.Connection]:
    with postgres_database.connect() as connection:
        yield connection


def found(connection: psycopg.Connection, statement: str, schema: str, *parameters: Any) -> list[tuple[Any, ...]]:
    return connection.execute(statement.encode(), [schema, *parameters]).fetchall()


def test_the_tables_are_these_and_no_column_may_be_null(connection: psycopg.Connection, schema: str) -> None:
    columns = found(
        connection,
        "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns "
        "WHERE table_schema = %s ORDER BY table_name, ordinal_position",
        schema,
    )
    assert columns == [(table, *column, "NO") for table in sorted(COLUMNS) for column in COLUMNS[table]]


def test_what_is_said_of_the_tables_is_said_of_each(connection: psycopg.Connection, schema: str) -> None:
    """The checks, the roles' rights and the diagnosis, which would pass over a table that they do not know."""
    statement = "SELECT table_name FROM information_schema.tables WHERE table_schema = %s ORDER BY 1"
    tables = found(connection, statement, schema)
    for known in (TABLES, diagnosis_of_tables._COLUMNS, diagnosis_of_tables._RIGHTS):
        assert tables == [(name,) for name in sorted(known)]


def test_names_are_ordered_by_their_bytes(connection: psycopg.Connection, schema: str) -> None:
    statement = (
        "SELECT column_name, collation_name FROM information_schema.columns WHERE table_schema = %s AND table_name = %s"
    )
    names = [(name, "C") for name in ("user_id", "device_id", "role")]
    assert found(connection, statement, schema, "account") == [("id", None), *names]


@pytest.mark.parametrize("table", KEYS)
def test_the_indexes_are_the_keys_and_a_records_begins_with_its_account(
    connection: psycopg.Connection, schema: str, table: str
) -> None:
    indexes = found(
        connection,
        "SELECT ARRAY(SELECT attname::text FROM unnest(indkey) WITH ORDINALITY AS part (number, position) "
        "JOIN pg_attribute ON attnum = part.number AND attrelid = indrelid ORDER BY position), indisunique "
        "FROM pg_index JOIN pg_class ON pg_class.oid = indrelid "
        "WHERE relnamespace = %s::regnamespace AND relname = %s ORDER BY indexrelid",
        schema,
        table,
    )
    # And one for the policies, which look accounts up by their role.
    others = [(["role"], False)] if table == "account" else []
    assert indexes == [*((columns, True) for columns in KEYS[table]), *others]


def test_nothing_of_ours_is_a_function_a_trigger_or_a_reference(connection: psycopg.Connection, schema: str) -> None:
    assert found(connection, "SELECT proname FROM pg_proc WHERE pronamespace = %s::regnamespace", schema) == []
    statement = (
        "SELECT tgname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid WHERE relnamespace = %s::regnamespace"
    )
    assert found(connection, statement, schema) == []
    statement = "SELECT conname FROM pg_constraint WHERE connamespace = %s::regnamespace AND contype = 'f'"
    assert found(connection, statement, schema) == []


def test_no_sequence_can_fall_behind_its_rows(connection: psycopg.Connection, schema: str) -> None:
    """Ids are drawn by the core: a counter that a restore left behind would give one away twice."""
    statement = "SELECT DISTINCT relkind::text FROM pg_class WHERE relnamespace = %s::regnamespace ORDER BY 1"
    assert found(connection, statement, schema) == [("i",), ("r",)]
    statement = "SELECT count(*) FROM information_schema.columns WHERE table_schema = %s AND is_identity = 'YES'"
    assert found(connection, statement, schema) == [(0,)]


def test_the_one_large_table_is_kept_as_such(connection: psycopg.Connection, schema: str) -> None:
    statement = "SELECT reloptions FROM pg_class WHERE relnamespace = %s::regnamespace AND relname = %s"
    [(options,)] = found(connection, statement, schema, "record")
    assert options == [
        "autovacuum_vacuum_scale_factor=0.02",
        "autovacuum_vacuum_insert_scale_factor=0.02",
        "autovacuum_analyze_scale_factor=0.02",
    ]
    statement = (
        "SELECT attname, attstorage FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid "
        "WHERE relnamespace = %s::regnamespace AND relname = %s AND attnum > 0"
    )
    # What is sealed does not compress: "e" is for external.
    assert [(name, _text(storage)) for name, storage in found(connection, statement, schema, "record")] == [
        ("account_id", "p"),
        ("key", "x"),
        ("value", "e"),
    ]


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()
