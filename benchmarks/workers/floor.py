"""What PostgreSQL itself takes for the rows that a checkout stored: binary COPY, a prepared select, a durable upsert.

Which table and which columns is read from the catalogue, so that this works whatever a checkout's tables are: it is the
largest table of the schema, by its primary key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from workers.timing import Timings

_LARGEST: Final = (
    "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = 'r' "
    "ORDER BY pg_total_relation_size(oid) DESC LIMIT 1"
)
_PRIMARY_KEY: Final = (
    "SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey) "
    "WHERE indrelid = %s::regclass AND indisprimary ORDER BY array_position(indkey::int2[], attnum)"
)


class _Rows(NamedTuple):
    """Some of a table's rows, and where they are."""

    schema: str
    table: Composed
    key: list[str]
    columns: list[str]
    types: list[int]
    values: list[tuple[Any, ...]]


@contextmanager
def _rows(database: Mapping[str, str], count: int) -> Iterator[tuple[psycopg.Connection, _Rows]]:
    """Rows of the largest table."""
    schema = database["schema"]
    with psycopg.connect(database["libpq"], autocommit=True) as connection:
        row = connection.execute(_LARGEST, [schema]).fetchone()
        assert row is not None, "the schema has tables"
        name = str(row[0])
        table = SQL("{}.{}").format(Identifier(schema), Identifier(name))
        cursor = connection.cursor(binary=True)
        key = [str(row[0]) for row in connection.execute(_PRIMARY_KEY, [f'"{schema}"."{name}"'])]
        values = cursor.execute(SQL("SELECT * FROM {} LIMIT {}").format(table, count)).fetchall()
        described = cursor.description or []
        columns, types = [column.name for column in described], [column.type_code for column in described]
        yield connection, _Rows(schema, table, key, columns, types, values)


@contextmanager
def _twin(connection: psycopg.Connection, rows: _Rows) -> Iterator[Composed]:
    """An empty table like that of the rows, with its indexes."""
    twin = SQL("{}.{}").format(Identifier(rows.schema), Identifier("twin"))
    connection.execute(SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL)").format(twin, rows.table))
    yield twin
    connection.execute(SQL("DROP TABLE {}").format(twin))


def _names(columns: Sequence[str]) -> Composed:
    return SQL(", ").join(map(Identifier, columns))


def copy(database: Mapping[str, str], count: int) -> dict[str, Any]:
    """Write the rows with one binary COPY, from Python's values, in a transaction of its own."""
    timings = Timings()
    with _rows(database, count) as (connection, rows), _twin(connection, rows) as twin:
        statement = SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(twin)
        with timings.all_of("", len(rows.values)), connection.cursor().copy(statement) as copying:
            copying.set_types(rows.types)
            for row in rows.values:
                copying.write_row(row)
    return timings.told()


def upsert(database: Mapping[str, str], count: int) -> dict[str, Any]:
    """Write the rows one by one with a prepared statement, a transaction each."""
    timings = Timings()
    with _rows(database, count + 10) as (connection, rows), _twin(connection, rows) as twin:
        statement = SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT ({}) DO UPDATE SET {}").format(
            twin,
            _names(rows.columns),
            SQL(", ").join(SQL("%s") * len(rows.columns)),
            _names(rows.key),
            SQL(", ").join(SQL("{0} = excluded.{0}").format(Identifier(column)) for column in rows.columns),
        )

        def write(row: tuple[Any, ...]) -> None:
            connection.execute(statement, row, prepare=True)

        for row in rows.values[:10]:
            write(row)
        timings.each("", write, rows.values[10:])
    return timings.told()


def select(database: Mapping[str, str], count: int) -> dict[str, Any]:
    """Read rows one by one with a prepared statement, by the primary key, in no order."""
    timings = Timings()
    with _rows(database, 0) as (connection, rows):
        cursor = connection.cursor(binary=True)
        conditions = SQL(" AND ").join(SQL("{} = %s").format(Identifier(column)) for column in rows.key)
        statement = SQL("SELECT * FROM {} WHERE {}").format(rows.table, conditions)
        some = SQL("SELECT {} FROM {} ORDER BY random() LIMIT {}").format(_names(rows.key), rows.table, count + 10)
        keys = connection.execute(some).fetchall()

        def read(key: tuple[Any, ...]) -> None:
            if cursor.execute(statement, key, prepare=True).fetchone() is None:
                raise RuntimeError("a row is gone")

        for key in keys[:10]:
            read(key)
        timings.each("", read, keys[10:])
    return timings.told()


def scan(database: Mapping[str, str], count: int) -> dict[str, Any]:
    """Read so many rows with one statement."""
    timings = Timings()
    with _rows(database, 0) as (connection, rows), timings.all_of("", count):
        connection.cursor(binary=True).execute(
            SQL("SELECT * FROM {} LIMIT {}").format(rows.table, count), prepare=True
        ).fetchall()
    return timings.told()
