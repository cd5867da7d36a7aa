"""The raw interface: accounts, bytes under keys, numbered batches."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from cryptostore import Account, AccountRow, Batch, Database, Range, Row, SchemaError, StoreClosed, open_backend
from cryptostore_sqlite.database import SQLiteDatabase
from cryptostore_sqlite.plugin import open_sqlite
from raw_databases import TIMEOUT, commit, new_claim, next_batch, take_over

Execute = Callable[..., list[tuple[Any, ...]]]

EVERYTHING: Final = Range(b"", None)

#: In their order: SQLite would tell some of these texts apart by nothing but their bytes.
KEYS: Final = [
    b"\x00",
    b"\x00\x00",
    b"\x00\xff",
    b"\x01",
    b"A",
    b"a",
    b"a\x00",
    b"a\x00b",
    b"a\xff",
    "ä".encode(),
    b"\xff",
    b"\xff\x00",
    b"\xff" * 1_023,
    b"\xff" * 1_024,
]


def contents(database: Database, row: AccountRow) -> dict[bytes, bytes]:
    return dict(database.ranges(row.id, [EVERYTHING], TIMEOUT))


def test_a_new_account_is_the_claims(database: SQLiteDatabase) -> None:
    claim = new_claim("the bot")
    row = database.take_over("@alice:example.org", "D", claim, TIMEOUT)
    assert row == AccountRow(
        claim.new_id, "@alice:example.org", "D", 1, claim.incarnation, 0, "the bot", 1_767_323_045_678_901
    )
    assert database.find("@alice:example.org", "D", TIMEOUT) == row


def test_an_account_that_is_taken_over_keeps_its_id_sequence_and_rows(database: SQLiteDatabase) -> None:
    before = commit(database, take_over(database), {b"key": b"value"})
    claim = new_claim("another")
    row = database.take_over(before.user_id, before.device_id, claim, TIMEOUT)
    assert row == before._replace(epoch=2, incarnation=claim.incarnation, owner="another")
    assert contents(database, row) == {b"key": b"value"}


def test_finding_an_account_changes_nothing(database: SQLiteDatabase) -> None:
    assert database.find("@alice:example.org", "D", TIMEOUT) is None
    assert database.accounts(TIMEOUT) == []


def test_accounts_are_told_apart_byte_by_byte(database: SQLiteDatabase) -> None:
    names = [
        ("@a:b", "D"),
        ("@a:b", "d"),
        ("@A:b", "D"),
        ("@a:b", "D "),
        ("@ä:b", "D"),
        ("@a\u0308:b", "D"),
        ("@", "a:bD"),
    ]
    rows = [take_over(database, *name) for name in names]
    assert [row[:4] for row in rows] == [(row.id, *name, 1) for row, name in zip(rows, names, strict=True)]
    assert len({row.id for row in rows}) == len(names)
    assert [database.find(*name, TIMEOUT) for name in names] == rows
    assert sorted(database.accounts(TIMEOUT)) == sorted(rows)


@pytest.mark.parametrize(
    "call",
    [
        take_over,
        lambda database: database.find("@alice:example.org", "ALICEDEVICE", TIMEOUT),
        lambda database: database.accounts(TIMEOUT),
    ],
    ids=["take_over", "find", "accounts"],
)
def test_an_account_without_its_ownership_is_neither_made_new_nor_passed_over(
    database: SQLiteDatabase, execute: Execute, call: Callable[[Database], object]
) -> None:
    row = commit(database, take_over(database), {b"key": b"value"})
    take_over(database, "@bob:example.org")
    execute("DELETE FROM ownership WHERE account_id = ?", row.id)
    missing = r"ownership of @alice:example\.org ALICEDEVICE is missing .* restore a backup"
    with pytest.raises(SchemaError, match=missing):
        call(database)
    with pytest.raises(SchemaError, match=missing):
        database.commit(row.id, next_batch(row, {b"key": b"late"}), TIMEOUT)
    assert execute("SELECT count(*) FROM ownership") == [(1,)]
    assert contents(database, row) == {b"key": b"value"}


def test_an_ownership_without_its_account_is_not_taken_for_a_new_database(url: str, execute: Execute) -> None:
    with open_backend(url) as backend:
        take_over(backend.database)
        take_over(backend.database, "@bob:example.org")
    execute("DELETE FROM account WHERE user_id = '@alice:example.org'")
    with pytest.raises(
        SchemaError, match=r"keys\.db holds the ownership of an account that is missing; restore a backup"
    ):
        open_backend(url)


def test_an_unreadable_account_hides_no_other(
    url: str, alice: Account, execute: Execute, caplog: pytest.LogCaptureFixture
) -> None:
    with open_backend(url) as backend:
        for name in ("ALICEDEVICE", "USER", "DEVICE", "EMPTY"):
            take_over(backend.database, alice.user_id, name)
        execute("UPDATE account SET user_id = CAST(x'ff' AS TEXT) WHERE device_id = 'USER'")
        execute("UPDATE account SET device_id = CAST(x'ff' AS TEXT) WHERE device_id = 'DEVICE'")
        execute("UPDATE account SET device_id = '' WHERE device_id = 'EMPTY'")
        execute("UPDATE ownership SET owner = CAST(x'ff' AS TEXT)")
        accounts = backend.accounts()
        assert [(account, ownership.owner) for account, ownership in accounts.items()] == [(alice, "\ufffd")]
    assert caplog.text.count("unreadable account") == 3


def test_a_batch_puts_replaces_and_deletes(database: SQLiteDatabase) -> None:
    row = commit(database, take_over(database), {b"kept": b"1", b"replaced": b"1", b"deleted": b"1"})
    row = commit(database, row, {b"replaced": b"2", b"new": b"2"}, [b"absent", b"deleted"])
    assert contents(database, row) == {b"kept": b"1", b"replaced": b"2", b"new": b"2"}
    assert database.find(row.user_id, row.device_id, TIMEOUT) == row


@pytest.mark.parametrize(
    "change",
    [
        {"number": 2},
        {"number": 4},
        {"number": 1},
        {"epoch": 1},
        {"epoch": 3},
        {"incarnation": 7},
        {"epoch": 3, "incarnation": 7, "number": 1},
    ],
    ids=str,
)
def test_a_batch_that_is_not_the_owners_next_changes_nothing(database: SQLiteDatabase, change: dict[str, Any]) -> None:
    take_over(database)
    row = commit(database, commit(database, take_over(database)), {b"key": b"value"})
    assert (row.epoch, row.sequence) == (2, 2)
    batch = next_batch(row, {b"key": b"other", b"new": b"other"}, [b"deleted"])._replace(**change)
    assert database.commit(row.id, batch, TIMEOUT) == row
    assert database.find(row.user_id, row.device_id, TIMEOUT) == row
    assert contents(database, row) == {b"key": b"value"}


def test_an_older_owner_is_told_who_has_the_account(database: SQLiteDatabase, url: str) -> None:
    older = commit(database, take_over(database), {b"key": b"older"})
    other = open_sqlite(url, {}, TIMEOUT)
    newer = take_over(other)
    assert database.commit(older.id, next_batch(older, {b"key": b"late"}), TIMEOUT) == newer
    newer = commit(other, newer, {b"key": b"newer"})
    other.close()
    assert database.commit(older.id, next_batch(older, {b"key": b"late"}), TIMEOUT) == newer
    assert contents(database, newer) == {b"key": b"newer"}


def test_a_deleted_account_is_gone_with_its_rows_and_takes_no_batch(database: SQLiteDatabase, execute: Execute) -> None:
    row = commit(database, take_over(database), {b"key": b"value"})
    late = next_batch(row, {b"late": b"value"})
    database.delete(row.id, TIMEOUT)
    assert database.commit(row.id, late, TIMEOUT) is None
    again = take_over(database)
    assert (again.id == row.id, again.epoch, again.sequence) == (False, 1, 0)
    assert database.commit(row.id, late, TIMEOUT) is None
    assert [execute(f"SELECT count(*) FROM {table}") for table in ("account", "ownership", "record")] == [
        [(1,)],
        [(1,)],
        [(0,)],
    ]


def test_an_account_is_deleted_alone(database: SQLiteDatabase) -> None:
    names = [("@a:b", "D"), ("@a:b", "E"), ("@b:b", "D")]
    rows = [commit(database, take_over(database, *name), {b"key": b"%d" % n}) for n, name in enumerate(names)]
    database.delete(rows[0].id, TIMEOUT)
    database.delete(rows[0].id, TIMEOUT)
    assert sorted(database.accounts(TIMEOUT)) == sorted(rows[1:])
    assert [contents(database, row) for row in rows] == [{}, {b"key": b"1"}, {b"key": b"2"}]


def test_no_account_sees_anothers_rows(database: SQLiteDatabase) -> None:
    alice = commit(database, take_over(database, "@a:b", "D"), {b"a": b"alice", b"c": b"alice"})
    bob = commit(database, take_over(database, "@b:b", "D"), {b"a": b"bob", b"b": b"bob"})
    commit(database, bob, deletes=[b"c"])
    assert database.get(alice.id, [b"a", b"b", b"c"], TIMEOUT) == [Row(b"a", b"alice"), Row(b"c", b"alice")]
    assert database.ranges(alice.id, [EVERYTHING], TIMEOUT) == [Row(b"a", b"alice"), Row(b"c", b"alice")]
    assert database.page(bob.id, EVERYTHING, 9, TIMEOUT) == [Row(b"a", b"bob"), Row(b"b", b"bob")]


def test_keys_are_any_bytes_in_the_order_of_their_bytes(database: SQLiteDatabase) -> None:
    assert sorted(KEYS) == KEYS
    rows = [Row(key, b"%d" % number) for number, key in enumerate(KEYS)]
    row = commit(database, take_over(database), dict(rows[7:]))
    row = commit(database, row, dict(rows[:7]))
    assert database.ranges(row.id, [EVERYTHING], TIMEOUT) == rows
    assert database.page(row.id, EVERYTHING, len(rows), TIMEOUT) == rows
    assert database.get(row.id, KEYS, TIMEOUT) == rows
    for each in rows:
        assert database.get(row.id, [each.key], TIMEOUT) == [each]


@pytest.mark.parametrize("size", [0, 1, 200, 1_000, 5_000, 2 * 2**20, 4 * 2**20])
def test_values_are_any_bytes(database: SQLiteDatabase, size: int) -> None:
    value = bytes(itertools.islice(itertools.cycle(range(256)), size))
    row = commit(database, take_over(database), {b"replaced": b"value", b"text": "ä".encode()})
    row = commit(database, row, {b"replaced": value, b"new": value})
    stored = {b"replaced": value, b"new": value, b"text": "ä".encode()}
    assert contents(database, row) == stored
    assert dict(database.get(row.id, sorted(stored), TIMEOUT)) == stored


def test_what_a_damaged_file_holds_in_place_of_values_comes_as_bytes(database: SQLiteDatabase, path: Path) -> None:
    damaged = {b"integer": 7, b"null": None, b"real": 0.5, b"text": "ä"}
    row = commit(database, take_over(database), dict.fromkeys(damaged, b"value"))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection, not_strict(connection):
        connection.executemany(
            "UPDATE record SET value = ? WHERE key = ?", [(new, key) for key, new in damaged.items()]
        )
    found = [Row(b"integer", b"7"), Row(b"null", b""), Row(b"real", b"0.5"), Row(b"text", "ä".encode())]
    assert database.get(row.id, sorted(damaged), TIMEOUT) == found
    assert database.ranges(row.id, [EVERYTHING], TIMEOUT) == found


@contextmanager
def not_strict(connection: sqlite3.Connection) -> Iterator[None]:
    """Let the table of records take values of any type."""
    (strict,) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'record'").fetchone()
    redefine(connection, strict.replace("STRICT", "").replace("value      BLOB    NOT NULL", "value"))
    yield
    redefine(connection, strict)


def redefine(connection: sqlite3.Connection, sql: str) -> None:
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'record'", (sql,))
    connection.execute("PRAGMA writable_schema = RESET")


def test_ranges_are_half_open_and_answered_in_order(database: SQLiteDatabase) -> None:
    row = commit(database, take_over(database), dict.fromkeys(KEYS, b""))

    def keys_in(*ranges: Range) -> list[bytes]:
        return [key for key, _ in database.ranges(row.id, ranges, TIMEOUT)]

    boundaries = [b"", *KEYS, b"a\x00\x00", b"b"]
    for start, end in itertools.product(boundaries, [*boundaries, None]):
        expected = [key for key in KEYS if key >= start and (end is None or key < end)]
        assert keys_in(Range(start, end)) == expected
    several = [Range(b"\x00\x00", b"\x01"), Range(b"B", b"C"), Range(b"a", b"a\xff"), Range(b"\xff\x00", None)]
    assert keys_in(*several) == [*KEYS[1:3], *KEYS[5:8], *KEYS[11:]]
    assert keys_in() == []


@pytest.mark.parametrize("size", [1, 3, len(KEYS), len(KEYS) + 1])
def test_pages_follow_on_each_other(database: SQLiteDatabase, size: int) -> None:
    row = commit(database, take_over(database), dict.fromkeys(KEYS, b""))
    found: list[bytes] = []
    start: bytes = b"\x00\x00"
    while page := database.page(row.id, Range(start, b"\xff\x00"), size, TIMEOUT):
        assert len(page) <= size
        found += [key for key, _ in page]
        start = page[-1].key + b"\x00"
    assert found == KEYS[1:11]


def test_any_number_of_keys_is_looked_up_at_once(database: SQLiteDatabase) -> None:
    # More than the parameters that a statement may have by SQLite's own default, 32,766.
    stored = {number.to_bytes(8): b"%d" % number for number in range(0, 100_000, 2)}
    row = commit(database, take_over(database), stored)
    found = database.get(row.id, [number.to_bytes(8) for number in range(100_000)], TIMEOUT)
    assert found == [Row(key, value) for key, value in stored.items()]
    assert database.get(row.id, [], TIMEOUT) == []


@pytest.mark.parametrize(
    "read",
    [
        lambda database, row: database.get(row.id, [b"a", b"b", b"c"], TIMEOUT),
        lambda database, row: database.ranges(row.id, [Range(b"a", b"b"), Range(b"b", None)], TIMEOUT),
    ],
    ids=["get", "ranges"],
)
def test_an_answer_is_one_snapshot(
    database: SQLiteDatabase, url: str, read: Callable[[Database, AccountRow], list[Row]]
) -> None:
    older = dict.fromkeys([b"a", b"b", b"c"], b"older")
    row = commit(database, take_over(database), older)
    read(database, row)
    (reader,) = database._connections._idle_readers
    other = open_sqlite(url, {}, TIMEOUT)
    selected: list[str] = []

    def write_between(statement: str) -> None:
        if statement.split()[0] == "SELECT":
            selected.append(statement)
            if len(selected) == 2:
                commit(other, row, dict.fromkeys(older, b"newer"))

    reader.set_trace_callback(write_between)
    assert dict(read(database, row)) == older
    reader.set_trace_callback(None)
    assert len(selected) >= 2
    assert dict(read(database, row)) == dict.fromkeys(older, b"newer")
    other.close()


def test_what_one_handle_committed_every_other_finds(database: SQLiteDatabase, url: str) -> None:
    other = open_sqlite(url, {}, TIMEOUT)
    row = commit(database, take_over(database), {b"key": b"value"})
    assert other.find(row.user_id, row.device_id, TIMEOUT) == row
    assert contents(other, row) == {b"key": b"value"}
    row = commit(other, row, {b"key": b"other"})
    other.close()
    assert contents(database, row) == {b"key": b"other"}


def test_health_and_schema_are_told(database: SQLiteDatabase) -> None:
    health, schema = database.health(TIMEOUT), database.schema(TIMEOUT)
    assert (health.server, health.writable) == (f"SQLite {sqlite3.sqlite_version}", True)
    assert (schema.version, schema.min_compatible) == (1, 1)


def test_a_call_that_comes_after_closing_is_refused(url: str) -> None:
    database = open_sqlite(url, {}, TIMEOUT)
    row = take_over(database)
    database.close()
    calls: list[Callable[[], object]] = [
        lambda: take_over(database),
        lambda: database.get(row.id, [b"key"], TIMEOUT),
        lambda: database.commit(row.id, Batch(1, row.incarnation, 1, [], []), TIMEOUT),
        lambda: database.health(TIMEOUT),
    ]
    for call in calls:
        with pytest.raises(StoreClosed, match="open it again"):
            call()
