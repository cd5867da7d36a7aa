"""What the contract cannot see of the raw interface: damaged rows, missing halves, one snapshot's statements."""

from __future__ import annotations

import shlex
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from cryptostore import (
    Account,
    AccountRow,
    Batch,
    Database,
    Range,
    Row,
    SchemaError,
    StoreClosed,
    new_pickle_key,
    open_backend,
)
from cryptostore_sqlite.database import SQLiteDatabase
from cryptostore_sqlite.plugin import open_sqlite
from raw_databases import TIMEOUT, commit, next_batch, take_over

Execute = Callable[..., list[tuple[Any, ...]]]

EVERYTHING: Final = Range(b"", None)
KEY: Final = new_pickle_key()


def contents(database: Database, row: AccountRow) -> dict[bytes, bytes]:
    return dict(database.ranges(row.id, [EVERYTHING], TIMEOUT))


@pytest.mark.parametrize(
    "call",
    [
        take_over,
        lambda database: database.find("@alice:example.org", "ALICEDEVICE", TIMEOUT),
    ],
    ids=["take_over", "find"],
)
def test_an_account_without_its_ownership_is_not_made_new(
    database: SQLiteDatabase, execute: Execute, call: Callable[[Database], object]
) -> None:
    row = commit(database, take_over(database), {b"key": b"value"})
    take_over(database, "@bob:example.org")
    execute("DELETE FROM ownership WHERE account_id = ?", row.id)
    missing = rf"ownership of @alice:example\.org ALICEDEVICE is missing .* sqlite3 .*keys\.db .*id = {row.id}"
    with pytest.raises(SchemaError, match=missing):
        call(database)
    with pytest.raises(SchemaError, match=missing):
        database.commit(row.id, next_batch(row, {b"key": b"late"}), TIMEOUT)
    assert execute("SELECT count(*) FROM ownership") == [(1,)]
    assert contents(database, row) == {b"key": b"value"}


def test_an_account_without_its_ownership_is_in_the_way_of_no_other(
    url: str, execute: Execute, caplog: pytest.LogCaptureFixture
) -> None:
    with open_backend(url) as backend:
        row = take_over(backend.database)
        bob = take_over(backend.database, "@bob:example.org")
        execute("DELETE FROM ownership WHERE account_id = ?", row.id)
        for _ in range(3):
            listing = backend.listing()
            assert ([account.user_id for account in listing.accounts], listing.left_out) == ([bob.user_id], 1)
        assert backend.database.find(bob.user_id, bob.device_id, TIMEOUT) == bob
    assert caplog.text.count("the ownership of @alice:example.org ALICEDEVICE is missing") == 1


def test_while_an_ownership_has_no_account_none_is_made_and_all_others_open(
    url: str, alice: Account, path: Path, execute: Execute
) -> None:
    with open_backend(url) as backend:
        take_over(backend.database, "@bob:example.org")
        backend.open_store(alice, pickle_key=KEY).close()
    execute("DELETE FROM account WHERE user_id = '@bob:example.org'")
    with open_backend(url) as backend:
        assert (list(backend.accounts()), backend.listing().left_out) == ([alice], 1)
        backend.open_store(alice, pickle_key=KEY).close()
        with pytest.raises(SchemaError, match="holds the ownership of an account that is missing") as caught:
            backend.open_store(Account("@new:example.org", "D"), pickle_key=KEY)
        command = shlex.split(str(caught.value).partition(" with: ")[2])
        assert command[:2] == ["sqlite3", str(path)]
        for statement in command[2].split("; "):
            execute(statement)
        backend.open_store(Account("@new:example.org", "D"), pickle_key=KEY).close()
        assert backend.listing().left_out == 0
        assert len(backend.accounts()) == 2


def test_what_is_left_of_an_account_is_removed_by_what_its_error_says(
    database: SQLiteDatabase, execute: Execute
) -> None:
    row = commit(database, take_over(database), {b"key": b"value"})
    other = commit(database, take_over(database, "@bob:example.org"), {b"key": b"value"})
    execute("DELETE FROM ownership WHERE account_id = ?", row.id)
    with pytest.raises(SchemaError) as caught:
        take_over(database)
    for statement in shlex.split(str(caught.value).partition(" with: ")[2])[2].split("; "):
        execute(statement)
    assert contents(database, take_over(database)) == {}
    assert contents(database, other) == {b"key": b"value"}


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
