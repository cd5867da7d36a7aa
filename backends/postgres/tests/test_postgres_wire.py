"""What goes over the wire: which statements, and how often the client waits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from psycopg.adapt import Transformer
from psycopg.pq import Format

from cryptostore import AccountRow, Range
from cryptostore_contract.proxy import Proxy
from cryptostore_postgres import portions
from cryptostore_postgres.arrays import ByteaArray
from cryptostore_postgres.database import PostgresDatabase as Database
from postgres_database import PostgresDatabase
from postgres_wire import Statement, Wire
from raw_databases import TIMEOUT, commit, next_batch, take_over

#: Where a statement takes the account's id from.
ACCOUNT: Final = re.compile(r"id OPERATOR\(pg_catalog\.=\) \$(\d+)")
#: The tables, of which no statement may speak without saying of which schema.
TABLE: Final = re.compile(r'"t\d+_\d+"\."(account|ownership|record)"')
#: What a transaction may hold besides: each of these ends with it.
TRANSACTION: Final = re.compile(r"BEGIN ISOLATION LEVEL READ COMMITTED|COMMIT|ROLLBACK|")
SETTINGS: Final = re.compile(
    r"\s*SELECT (pg_catalog\.set_config\([^()]*(CASE WHEN pg_catalog\.current_setting\([^()]*\) "
    r"OPERATOR\(pg_catalog\.=\)[^()]*)?true\)[\s,]*)+"
)
#: What would outlive its transaction. A setting or a lock that ends with it says so.
SESSION_STATE: Final = re.compile(
    r"(^|;)\s*(SET\s+(?!LOCAL|TRANSACTION)|(UN)?LISTEN|PREPARE|DECLARE|CREATE\s+TEMP)"
    r"|set_config\((?!([^()]|\([^()]*\))*,\s*true\))|pg_(try_)?advisory_lock"
)

ROWS: Final = {b"%06d" % number: b"x" * 200 for number in range(10_000)}


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def tapped(postgres_database: PostgresDatabase, database_schema: str, wire: Wire) -> Iterator[Database]:
    """A database whose clear text passes the wire."""
    with Proxy(postgres_database.address, tap=wire) as proxy:
        opened = postgres_database.open(
            database_schema, proxy.port, sslmode="disable", gssencmode="disable", pool_size=1
        )
        yield opened
        opened.close()


@pytest.fixture
def row(tapped: Database, wire: Wire) -> AccountRow:
    row = take_over(tapped)
    row = commit(tapped, row, {b"a": b"1", b"b": b"1", b"c": b"1"})
    wire.forget()
    return row


#: Every call on one account's rows.
CALLS: Final[dict[str, Callable[[Database, AccountRow], Any]]] = {
    "get one": lambda database, row: database.get(row.id, [b"a"], TIMEOUT),
    "get ten thousand": lambda database, row: database.get(row.id, sorted(ROWS), TIMEOUT),
    "one range": lambda database, row: database.ranges(row.id, [Range(b"a", b"c")], TIMEOUT),
    "a thousand ranges": lambda database, row: database.ranges(
        row.id, [Range(key, key + b"\x00") for key in sorted(ROWS)[:1_000]], TIMEOUT
    ),
    "page": lambda database, row: database.page(row.id, Range(b"", None), 500, TIMEOUT),
    "put one": lambda database, row: commit(database, row, {b"a": b"2"}),
    "put ten thousand": lambda database, row: commit(database, row, ROWS),
    "delete one": lambda database, row: commit(database, row, deletes=[b"a"]),
    "put and delete": lambda database, row: commit(database, row, ROWS, [b"a", b"b"]),
    "neither": lambda database, row: commit(database, row),
    "delete the account": lambda database, row: database.delete(row.id, TIMEOUT),
}
#: Those on any account, or on none.
OTHERS: Final[dict[str, Callable[[Database], Any]]] = {
    "take over": take_over,
    "find": lambda database: database.find("@alice:example.org", "ALICEDEVICE", TIMEOUT),
    "accounts": lambda database: database.accounts(TIMEOUT),
    "health": lambda database: database.health(TIMEOUT),
    "schema": lambda database: database.schema(TIMEOUT),
}


def assert_no_session_state(wire: Wire) -> None:
    """What was sent leaves nothing in the session, or in the server, that outlives its transaction."""
    assert not wire.others - {b"D", b"E", b"X"}, "something else than Describe, Execute and Terminate was sent"
    assert wire.statements
    for statement in wire.statements:
        assert statement.name == "", "a named prepared statement belongs to the session"
        assert not is_session_state(statement.text), statement.text


def is_session_state(text: str) -> bool:
    return SESSION_STATE.search(text) is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SET synchronous_commit = 'off'", True),
        ("BEGIN; SET SESSION ROLE x", True),
        ("SET LOCAL synchronous_commit = 'on'", False),
        ("SET TRANSACTION ISOLATION LEVEL READ COMMITTED", False),
        ("UPDATE t SET sequence = sequence", False),
        ("SELECT set_config('lock_timeout', '0', false)", True),
        ("SELECT set_config('a', current_setting('b'), true), set_config('c', '0', false)", True),
        ("SELECT set_config('a', current_setting('b'), true), set_config('c', '0', true)", False),
        ("SELECT pg_advisory_lock(1)", True),
        ("SELECT pg_advisory_xact_lock(1)", False),
        ("LISTEN keys", True),
    ],
)
def test_session_state_is_told_from_what_ends_with_its_transaction(text: str, expected: bool) -> None:
    assert is_session_state(text) is expected


@pytest.mark.parametrize("call", CALLS)
def test_a_call_is_one_round_trip_of_statements_on_its_account_alone(
    tapped: Database, row: AccountRow, wire: Wire, call: str
) -> None:
    CALLS[call](tapped, row)
    assert wire.waits == ["Sync"]
    assert_no_session_state(wire)
    on_rows = [each for each in wire.statements if TABLE.search(each.text)]
    for statement in on_rows:
        assert named_account(statement) == row.id, statement.text
    for statement in wire.statements:
        is_framing = TRANSACTION.fullmatch(statement.text) or SETTINGS.fullmatch(statement.text)
        assert statement in on_rows or is_framing, statement.text


def named_account(statement: Statement) -> int | None:
    """The account that a statement is bound to."""
    accounts = {statement.parameters[int(number) - 1].integer() for number in ACCOUNT.findall(statement.text)}
    return accounts.pop() if len(accounts) == 1 else None


@pytest.mark.parametrize("call", OTHERS)
def test_every_other_call_is_one_round_trip_too(tapped: Database, row: AccountRow, wire: Wire, call: str) -> None:
    OTHERS[call](tapped)
    assert len(wire.waits) == 1
    assert_no_session_state(wire)


@pytest.mark.parametrize("call", ["take over", "find"])
def test_an_account_is_named_by_its_ids(tapped: Database, row: AccountRow, wire: Wire, call: str) -> None:
    OTHERS[call](tapped)
    named = [each for each in wire.statements if TABLE.search(each.text)]
    assert named
    for statement in named:
        assert {b"@alice:example.org", b"ALICEDEVICE"} <= {parameter.data for parameter in statement.parameters}


def test_a_connection_that_was_idle_is_asked_whether_it_works(tapped: Database, row: AccountRow, wire: Wire) -> None:
    with tapped._connections.use(TIMEOUT):
        pass
    [connection] = tapped._connections._idle
    connection.used_at -= 1.0
    tapped.get(row.id, [b"a"], TIMEOUT)
    assert wire.waits == ["Query", "Sync"]
    wire.forget()
    tapped.get(row.id, [b"a"], TIMEOUT)
    assert wire.waits == ["Sync"]


def test_a_batch_that_is_not_the_next_is_confirmed_by_a_write_on_its_account(
    tapped: Database, row: AccountRow, wire: Wire
) -> None:
    batch = next_batch(row, {b"a": b"2"})
    tapped.commit(row.id, batch, TIMEOUT)
    wire.forget()
    tapped.commit(row.id, batch, TIMEOUT)
    assert wire.waits == ["Sync"] * 2
    assert_no_session_state(wire)
    [touch] = [each for each in wire.statements if "SET sequence = sequence" in each.text]
    assert named_account(touch) == row.id


def test_a_huge_batch_is_sent_in_portions_each_of_which_is_answered(
    tapped: Database, row: AccountRow, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portions, "_PORTION", 1_000_000)
    commit(tapped, row, ROWS)
    storing = [each for each in wire.statements if "INSERT" in each.text]
    assert len(storing) == 3
    assert len(wire.waits) == 4
    assert [each.text for each in wire.statements].count("COMMIT") == 1
    assert {named_account(each) for each in storing} == {row.id}


def test_what_ends_a_stalled_owner_names_its_account(tapped: Database, row: AccountRow, wire: Wire) -> None:
    with tapped._connections.use(TIMEOUT) as connection:
        tapped._end_stalled(connection, row.id)
    assert_no_session_state(wire)
    [statement] = wire.statements
    assert named_account(statement) == row.id


def test_opening_and_migrating_leave_no_session_state(
    postgres_database: PostgresDatabase, database_schema: str, wire: Wire
) -> None:
    with Proxy(postgres_database.address, tap=wire) as proxy:
        for is_first in (True, False):
            wire.forget()
            postgres_database.open(database_schema, proxy.port, sslmode="disable", gssencmode="disable").close()
            assert any("CREATE TABLE" in statement.text for statement in wire.statements) is is_first
            assert_no_session_state(wire)
        assert proxy.accepted == 2
    # A look at the tables, at their version and at the server, over the connection that the first call will use.
    assert len(wire.statements) == 3


@pytest.mark.parametrize("values", [[], [b""], [b"\x00", b"", b"x" * 100_000], sorted(ROWS)], ids=len)
def test_an_array_is_in_the_servers_binary_form(postgres_database: PostgresDatabase, values: list[bytes]) -> None:
    with postgres_database.connect() as connection:
        statement = b"SELECT $1::bytea[]"
        answer = connection.pgconn.exec_params(
            statement, [ByteaArray(values).data], param_formats=[Format.BINARY], result_format=Format.BINARY
        )
        loaded = Transformer(connection)
        loaded.set_pgresult(answer)
        assert loaded.load_rows(0, 1, tuple) == [(values,)]
