"""The tables and the statements on them, against the fields that the kinds declare."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cryptostore import KINDS, Account, Changes, FieldType, OlmMessage, Record, Value, fields_of, open_backend
from cryptostore_sqlite import statements
from cryptostore_sqlite.columns import from_time_column

Execute = Callable[..., list[tuple[Any, ...]]]

_TYPES = {FieldType.BYTES: "BLOB"} | dict.fromkeys(
    (FieldType.FLAG, FieldType.COUNT, FieldType.INTEGER, FieldType.TIME), "INTEGER"
)

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind_name)


@pytest.fixture
def database(url: str, path: Path) -> Iterator[sqlite3.Connection]:
    open_backend(url).close()
    with closing(sqlite3.connect(path)) as connection:
        yield connection


@every_kind
def test_a_table_has_the_fields_of_its_kind(database: sqlite3.Connection, kind: type[Record]) -> None:
    columns = database.execute(f"PRAGMA table_info({kind.kind_name})").fetchall()
    fields = [(name, _TYPES.get(field_type, "TEXT")) for name, field_type in fields_of(kind)]
    assert [(name, declared) for _, name, declared, *_ in columns] == [("account_id", "INTEGER"), *fields]
    assert all(not_null for _, _, _, not_null, _, _ in columns)
    key = sorted((position, name) for _, name, _, _, _, position in columns if position)
    assert [name for _, name in key] == ["account_id", *kind.key_fields]


@every_kind
def test_a_table_is_strict_and_goes_with_its_account(database: sqlite3.Connection, kind: type[Record]) -> None:
    listed = database.execute(f"PRAGMA table_list({kind.kind_name})").fetchone()
    assert listed[5] == 1
    ((_, _, parent, child, _, _, on_delete, _),) = database.execute(f"PRAGMA foreign_key_list({kind.kind_name})")
    assert (parent, child, on_delete) == ("account", "account_id", "CASCADE")


@every_kind
def test_every_look_up_searches_by_the_account_and_its_key(database: sqlite3.Connection, kind: type[Record]) -> None:
    for length in range(len(kind.key_fields) + 1):
        pages = [statements.page(kind, length, first=first) for first in (True, False)]
        for sql in (statements.select(kind, length), *pages):
            plan = plan_of(database, sql)
            (search,) = [step for step in plan if "record" in step]
            assert search.startswith("SEARCH record USING")
            if kind.key_fields:
                assert all(f"{name}=?" in search for name in ("account_id", *kind.key_fields[:length]))
            if sql in pages:
                assert not any("TEMP B-TREE" in step for step in plan), "a page must not sort all that is left"


def plan_of(database: sqlite3.Connection, sql: str) -> list[str]:
    return [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {sql}", ["[]"] * sql.count("?"))]


def test_times_out_of_range_are_value_errors() -> None:
    for microseconds in (2**63 - 1, -(2**63)):
        with pytest.raises(ValueError, match="range"):
            from_time_column(microseconds)


def test_a_scan_goes_on_behind_a_damaged_key(url: str, alice: Account, execute: Execute) -> None:
    # The last row of the first page is one whose key is no text.
    values = [Value("n", f"{number:04}", b"") for number in range(1_200)]
    with open_backend(url) as backend, backend.open_store(alice) as store:
        store.apply(Changes(values))
        execute("UPDATE value SET name = CAST(CAST(name AS BLOB) || x'ff' AS TEXT) WHERE name = '0499'")
        assert list(store.scan(Value)) == values[:499] + values[500:]
        assert list(store.scan(Value, ("n",))) == values[:499] + values[500:]


def test_keys_are_in_the_order_of_their_bytes(url: str, alice: Account) -> None:
    # In UTF-16 the emoji, a surrogate pair, would come before U+FFFD.
    hashes = ["A", "Z", "a", "ß", "ä", "ﬀ", "\ufffd", "😀", "\U0010ffff"]
    assert sorted(hashes, key=str.encode) == hashes
    with open_backend(url) as backend, backend.open_store(alice) as store:
        store.apply(Changes([OlmMessage("sender", name) for name in reversed(hashes)]))
        assert [message.hash for message in store.scan(OlmMessage)] == hashes
        assert [message.hash for message in store.select(OlmMessage, [("sender",)])[("sender",)]] == hashes


def test_an_unreadable_account_hides_no_other(
    url: str, alice: Account, execute: Execute, caplog: pytest.LogCaptureFixture
) -> None:
    with open_backend(url) as backend:
        backend.open_store(alice)
        backend.open_store(Account("@bob:example.org", "D"))
        execute("UPDATE account SET device_id = '' WHERE device_id = 'D'")
        assert list(backend.accounts()) == [alice]
    assert "unreadable account" in caplog.text
