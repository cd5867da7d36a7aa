"""What goes over the wire: which statements, and how often the client waits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import pytest

from cryptostore import (
    KINDS,
    Account,
    AccountNotFound,
    Backend,
    Batch,
    Changes,
    CryptoStore,
    CryptoStoreError,
    FencedOut,
    InboundGroupSession,
    Mode,
    Record,
    SyncToken,
    Value,
    open_backend,
)
from cryptostore_contract.proxy import Proxy
from cryptostore_contract.samples import samples
from cryptostore_postgres import statements
from cryptostore_postgres.store import PostgresStore
from postgres_database import PostgresDatabase
from postgres_wire import Statement, Wire

ALICE: Final = Account("@alice:example.org", "DEVICE")

#: Where a statement takes the account's id from.
ACCOUNT: Final = re.compile(r'(?:account_id" = |account_id = |SELECT |claim_batch"\(|WHERE id = )\$(\d+)')
#: A statement on rows of the schema, by a qualified name.
ON_OUR_ROWS: Final = re.compile(
    r'(INSERT INTO|UPDATE|DELETE FROM|SELECT (?!.*(advisory|set_config)).* FROM)\s.*"t\d+_\d+"\."\w+"'
    r'|SELECT "t\d+_\d+"\."claim_batch"\(\$1::bigint, \$2::bigint, \$3::bigint\)'
)
#: What a transaction may hold besides: each of these ends with it.
TRANSACTION: Final = re.compile(r"BEGIN ISOLATION LEVEL READ COMMITTED|COMMIT|ROLLBACK|")
#: A statement on the accounts themselves, by the ids that Matrix gives them.
ON_ACCOUNTS: Final = re.compile(r'"t\d+_\d+"\."account"')
#: What would outlive its transaction. A setting or a lock that ends with it says so.
SESSION_STATE: Final = re.compile(
    r"(^|;)\s*(SET\s+(?!LOCAL|TRANSACTION)|(UN)?LISTEN|PREPARE|DECLARE|CREATE\s+TEMP)"
    r"|set_config\((?!([^()]|\([^()]*\))*,\s*true\))|pg_(try_)?advisory_lock"
)
SETTINGS: Final = re.compile(r"\s*SELECT (set_config\([^()]*(current_setting\([^()]*\)[^()]*)?true\)[\s,]*)+")


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def backend(postgres_database: PostgresDatabase, wire: Wire) -> Iterator[Backend]:
    """A database whose clear text passes the wire."""
    schema = postgres_database.new_schema()
    with Proxy(postgres_database.address, tap=wire) as proxy:
        url = postgres_database.url(schema, proxy.port) + "&sslmode=disable&gssencmode=disable&pool_size=1"
        with open_backend(url) as opened:
            # An id that no parameter has by accident.
            for number in range(10):
                opened.open_store(Account("@other:example.org", str(number)))
            yield opened
    postgres_database.drop_schema(schema)


@pytest.fixture
def store(backend: Backend, wire: Wire) -> CryptoStore:
    store = backend.open_store(ALICE)
    wire.forget()
    return store


def touch_everything(store: CryptoStore, kind: type[Record]) -> None:
    records = samples(kind, 3)
    store.apply(Changes(records))
    store.get(kind, [record.key for record in records])
    store.select(kind, {record.key[:length] for record in records for length in range(len(kind.key_fields) + 1)})
    for length in range(len(kind.key_fields) + 1):
        list(store.scan(kind, records[0].key[:length]))
    store.apply(Changes(deletes=[(kind, record.key) for record in records]))


def named_account(statement: Statement) -> int | None:
    """The account that a statement is bound to."""
    accounts = {statement.parameters[int(number) - 1].integer() for number in ACCOUNT.findall(statement.text)}
    return accounts.pop() if len(accounts) == 1 else None


def is_for_the_transaction_alone(statement: Statement) -> bool:
    return any(pattern.fullmatch(statement.text) for pattern in (TRANSACTION, SETTINGS))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind_name)
def test_every_statement_of_a_store_names_its_account_and_none_is_session_state(
    store: CryptoStore, wire: Wire, kind: type[Record]
) -> None:
    touch_everything(store, kind)
    assert isinstance(store, PostgresStore)
    account = store._id
    assert account > 10
    assert not wire.others - {b"D", b"E"}, "something else than Describe and Execute was sent"
    named = 0
    for statement in wire.statements:
        assert statement.name == "", "a named prepared statement belongs to the session"
        if is_for_the_transaction_alone(statement):
            continue
        assert ON_OUR_ROWS.match(statement.text), statement.text
        assert named_account(statement) == account, statement.text
        named += 1
    assert named > 6


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


def assert_no_session_state(wire: Wire) -> None:
    """What was sent leaves nothing in the session, or in the server, that outlives its transaction."""
    assert not wire.others - {b"D", b"E", b"X"}, "something else than Describe, Execute and Terminate was sent"
    assert wire.statements
    for statement in wire.statements:
        assert statement.name == "", "a named prepared statement belongs to the session"
        assert not is_session_state(statement.text), statement.text


def assert_named(wire: Wire, account: Account, statements: int) -> None:
    """So many statements were on the accounts, and each named this one by its ids."""
    on_accounts = [statement for statement in wire.statements if ON_ACCOUNTS.search(statement.text)]
    assert len(on_accounts) == statements, [statement.text for statement in on_accounts]
    named = {account.user_id.encode(), account.device_id.encode()}
    for statement in on_accounts:
        assert named <= {parameter.data for parameter in statement.parameters}, statement.text


def test_taking_over_looking_and_deleting_name_the_account(backend: Backend, wire: Wire) -> None:
    backend.open_store(ALICE)
    for mode in Mode:
        wire.forget()
        backend.open_store(ALICE, mode)
        assert_no_session_state(wire)
        assert_named(wire, ALICE, 1)
    wire.forget()
    backend.delete_account(ALICE)
    assert_no_session_state(wire)
    assert_named(wire, ALICE, 1)


def test_being_refused_leaves_no_session_state(backend: Backend, wire: Wire) -> None:
    older, newer = backend.open_store(ALICE), backend.open_store(ALICE)
    wire.forget()
    with pytest.raises(FencedOut):
        older.apply(Changes([SyncToken("t")]))
    backend.delete_account(ALICE)
    with pytest.raises(AccountNotFound):
        newer.apply(Changes([SyncToken("t")]))
    assert_no_session_state(wire)


def test_a_batch_that_was_committed_already_is_confirmed_by_a_write_on_its_account(
    store: CryptoStore, wire: Wire
) -> None:
    batch = Batch(1, Changes([SyncToken("t")]))
    store.commit(batch, 5)
    wire.forget()
    store.commit(batch, 5)
    assert_no_session_state(wire)
    assert isinstance(store, PostgresStore)
    [touch] = [each for each in wire.statements if "SET sequence = sequence" in each.text]
    assert named_account(touch) == store._id


def test_what_ends_a_stalled_owner_names_its_account(
    backend: Backend, wire: Wire, postgres_database: PostgresDatabase
) -> None:
    store = backend.open_store(ALICE)
    assert isinstance(store, PostgresStore)
    wire.forget()
    store._connections.read(lambda connection: store._accounts.end_stalled(connection, ALICE))
    assert_no_session_state(wire)
    assert_named(wire, ALICE, 1)


def test_opening_migrating_and_looking_around_leave_no_session_state(
    postgres_database: PostgresDatabase, wire: Wire
) -> None:
    schema = postgres_database.new_schema()
    with Proxy(postgres_database.address, tap=wire) as proxy:
        url = postgres_database.url(schema, proxy.port) + "&sslmode=disable&gssencmode=disable&pool_size=1"
        for is_first in (True, False):
            wire.forget()
            with open_backend(url) as backend:
                assert any("CREATE TABLE" in statement.text for statement in wire.statements) is is_first
                assert backend.health().writable
                assert backend.schema().version > 0
                assert backend.accounts() == {}
            assert_no_session_state(wire)
    postgres_database.drop_schema(schema)


def sessions(count: int) -> list[Record]:
    now = datetime.now(UTC)
    return [
        InboundGroupSession(f"!room{n % 50}", f"session{n}", "k" * 43, b"p" * 950, "s" * 43, (), 0, now)
        for n in range(count)
    ]


@pytest.mark.parametrize("count", [1, 10_000])
def test_a_batch_is_one_round_trip_beside_the_liveness_check(store: CryptoStore, wire: Wire, count: int) -> None:
    store.apply(Changes(sessions(count), [(Value, ("n", "v"))]))
    assert wire.waits == ["Query", "Sync"]


def test_a_huge_batch_is_sent_in_portions_and_is_one_batch_all_the_same(
    store: CryptoStore, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "_PORTION", 3 * 1_000)
    records = sessions(10)
    store.apply(Changes(records))
    upserts = [statement for statement in wire.statements if statement.text.startswith("INSERT")]
    assert len(upserts) == 4
    assert set(store.scan(InboundGroupSession)) == set(records)
    assert isinstance(store, PostgresStore)
    upsert = store._statements.upsert
    assert isinstance(upsert, dict)
    # The last kind of the batch.
    monkeypatch.setitem(upsert, SyncToken, b"SELECT 1 / 0, %b::bigint, %b::text[]")
    later = [*sessions(20), SyncToken("t")]
    with pytest.raises(CryptoStoreError):
        store.apply(Changes(later))
    assert set(store.scan(InboundGroupSession)) == set(records)


@pytest.mark.parametrize("count", [1, 10_000])
def test_a_look_up_is_one_statement_and_one_round_trip(store: CryptoStore, wire: Wire, count: int) -> None:
    records = sessions(count)
    store.apply(Changes(records))
    wire.forget()
    assert len(store.get(InboundGroupSession, [record.key for record in records])) == count
    assert len(wire.statements) == 2
    assert wire.waits == ["Query", "Sync"]
    wire.forget()
    prefixes = [(), *{record.key[:1] for record in records}, *{record.key[:2] for record in records}]
    assert sum(map(len, store.select(InboundGroupSession, prefixes).values())) == 3 * count
    assert len(wire.statements) == 2
    assert wire.waits == ["Query", "Sync"]


def test_a_scan_is_one_round_trip_a_page(store: CryptoStore, wire: Wire) -> None:
    store.apply(Changes(sessions(1_200)))
    wire.forget()
    assert len(list(store.scan(InboundGroupSession))) == 1_200
    assert wire.waits == ["Query", "Sync"] * 3


def test_nothing_is_no_round_trip(store: CryptoStore, wire: Wire) -> None:
    store.apply(Changes())
    assert store.get(InboundGroupSession, []) == {}
    assert store.select(InboundGroupSession, []) == {}
    assert wire.waits == []


@pytest.mark.parametrize("mode", Mode)
def test_opening_costs_one_round_trip_beside_the_liveness_check(backend: Backend, wire: Wire, mode: Mode) -> None:
    backend.open_store(ALICE)
    wire.forget()
    backend.open_store(ALICE, mode)
    assert len(wire.waits) == 2
