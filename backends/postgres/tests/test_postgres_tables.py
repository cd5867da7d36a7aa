"""The tables: one for each kind, beginning with the account and gone with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import psycopg
import pytest

from cryptostore import KINDS, FieldType, Record, fields_of, key_fields_of, open_backend
from postgres_database import PostgresDatabase

#: The type of a column, where it is not text.
TYPES: Final = {
    FieldType.BYTES: "bytea",
    FieldType.FLAG: "boolean",
    FieldType.COUNT: "bigint",
    FieldType.INTEGER: "bigint",
    FieldType.TIME: "timestamp with time zone",
    FieldType.NAMES: "jsonb",
    FieldType.SCALARS: "jsonb",
    FieldType.PAIRS: "jsonb",
}

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind_name)


@pytest.fixture(scope="module")
def schema(postgres_database: PostgresDatabase) -> Iterator[str]:
    name = postgres_database.new_schema()
    open_backend(postgres_database.url(name)).close()
    yield name
    postgres_database.drop_schema(name)


@pytest.fixture(scope="module")
def connection(postgres_database: PostgresDatabase) -> Iterator[psycopg.Connection]:
    with postgres_database.connect() as connection:
        yield connection


def columns_of(connection: psycopg.Connection, schema: str, kind: type[Record]) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT column_name, data_type, is_nullable, collation_name FROM information_schema.columns "
        "WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position",
        [schema, kind.kind_name],
    ).fetchall()


@every_kind
def test_a_table_has_the_fields_of_its_kind(connection: psycopg.Connection, schema: str, kind: type[Record]) -> None:
    found = [(name, data_type, nullable) for name, data_type, nullable, _ in columns_of(connection, schema, kind)]
    fields = [(name, TYPES.get(field_type, "text"), "NO") for name, field_type in fields_of(kind)]
    assert found == [("account_id", "bigint", "NO"), *fields]


@every_kind
def test_keys_are_ordered_by_their_bytes(connection: psycopg.Connection, schema: str, kind: type[Record]) -> None:
    collations = {name: collation for name, _, _, collation in columns_of(connection, schema, kind)}
    for name, field_type in key_fields_of(kind):
        assert collations[name] == ("C" if field_type is FieldType.IDENTIFIER else None)


@every_kind
def test_the_key_begins_with_the_account_and_rows_go_with_it(
    connection: psycopg.Connection, schema: str, kind: type[Record]
) -> None:
    table = f"{schema}.{kind.kind_name}"
    key = connection.execute(
        "SELECT attname FROM pg_index, unnest(indkey) WITH ORDINALITY AS part (number, position) "
        "JOIN pg_attribute ON attnum = part.number "
        "WHERE indrelid = %s::regclass AND indisprimary AND attrelid = indrelid ORDER BY position",
        [table],
    ).fetchall()
    assert key == [("account_id",), *((name,) for name in kind.key_fields)]
    parents = connection.execute(
        "SELECT confrelid::regclass = %s::regclass, confdeltype FROM pg_constraint "
        "WHERE conrelid = %s::regclass AND contype = 'f'",
        [f"{schema}.account", table],
    ).fetchall()
    assert parents in ([(True, "c")], [(True, b"c")])
