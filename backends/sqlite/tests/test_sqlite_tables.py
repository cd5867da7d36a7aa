"""The tables, and how SQLite goes about the statements on them."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from cryptostore import open_backend
from cryptostore_sqlite import database as statements

_TABLES: Final = {
    "schema_version": ["id", "version", "min_compatible"],
    "account": ["id", "user_id", "device_id"],
    "ownership": ["account_id", "epoch", "incarnation", "sequence", "owner", "since", "written_at"],
    "record": ["account_id", "key", "value"],
}

#: What each statement looks its rows up by.
_SEARCHES: Final = {
    statements._GET: "SEARCH record USING INDEX sqlite_autoindex_record_1 (account_id=? AND key=?)",
    statements._RANGE: "SEARCH record USING INDEX sqlite_autoindex_record_1 (account_id=? AND key>? AND key<?)",
    statements._DELETE: "SEARCH record USING INDEX sqlite_autoindex_record_1 (account_id=? AND key=?)",
    statements._ID: "SEARCH account USING COVERING INDEX sqlite_autoindex_account_1 (user_id=? AND device_id=?)",
    statements._ADVANCE: "SEARCH ownership USING INTEGER PRIMARY KEY (rowid=?)",
}


@pytest.fixture
def connection(url: str, path: Path) -> Iterator[sqlite3.Connection]:
    open_backend(url).close()
    with closing(sqlite3.connect(path)) as connection:
        yield connection


def test_the_tables_are_strict_and_nothing_may_be_missing(connection: sqlite3.Connection) -> None:
    listed = {name: strict for _, name, _, _, _, strict in connection.execute("PRAGMA table_list") if name in _TABLES}
    assert listed == dict.fromkeys(_TABLES, 1)
    for table, names in _TABLES.items():
        columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
        assert [name for _, name, *_ in columns] == names
        assert all(not_null for _, _, _, not_null, _, _ in columns)


@pytest.mark.parametrize("statistics", ["none", "of an empty table", "of one account", "of many accounts"])
def test_every_look_up_searches_by_the_account_and_the_key(connection: sqlite3.Connection, statistics: str) -> None:
    accounts = {"of one account": [1], "of many accounts": range(100)}.get(statistics, [])
    keys = [number.to_bytes(8) for number in range(2_000)]
    connection.executemany(statements._PUT, ((*row, b"value") for row in itertools.product(accounts, keys)))
    if statistics != "none":
        connection.execute("ANALYZE")
        # The planner reads them when a database is opened.
        connection.execute("ANALYZE sqlite_schema")
    assert {sql: plan_of(connection, sql) for sql in _SEARCHES} == {sql: [plan] for sql, plan in _SEARCHES.items()}


def plan_of(connection: sqlite3.Connection, sql: str) -> list[str]:
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", [1] * sql.count("?"))]
