"""The raw interface: accounts, bytes under keys, numbered batches."""

from __future__ import annotations

import itertools
import random
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import pytest
from psycopg.sql import SQL, Identifier

from cryptostore import (
    AccountRow,
    BackendUnavailable,
    CryptoStoreError,
    Range,
    Row,
    SchemaError,
    StoreClosed,
    open_backend,
)
from cryptostore_contract.proxy import Proxy
from cryptostore_contract.waiting import result_of, start, together
from cryptostore_postgres import portions
from cryptostore_postgres.database import PostgresDatabase as Database
from patience import wait_until
from postgres_database import PostgresDatabase
from raw_databases import TIMEOUT, commit, new_claim, next_batch, take_over

EVERYTHING: Final = Range(b"", None)
PATIENCE: Final = 60.0

KEYS: Final = sorted(
    {
        *(bytes([byte]) for byte in (0, 1, 0x7F, 0x80, 0xFE, 0xFF)),
        *(bytes([first, second]) for first in (0, 0x5C, 0xFF) for second in (0, 0x27, 0xFF)),
        *(byte * size for byte in (b"\x00", b"\xff") for size in (3, 1_023, 1_024)),
        b"\xff" * 1_023 + b"\x00",
        *(random.Random(size).randbytes(size) for size in (16, 255, 256, 1_000, 1_024)),
    }
)
#: The sizes round which PostgreSQL changes how it keeps a value.
VALUES: Final = [bytes([size % 256]) * size for size in (0, 1, 126, 127, 1_999, 2_100, 8_192, 2 * 2**20, 4 * 2**20)]


@pytest.fixture
def execute(postgres_database: PostgresDatabase, database_schema: str) -> Iterator[Callable[..., list[Any]]]:
    """Runs one statement on the schema's tables, past the backend."""
    with postgres_database.connect() as connection:

        def run(statement: str, *parameters: Any) -> list[Any]:
            names = {name: Identifier(database_schema, name) for name in ("account", "ownership", "record")}
            answer = connection.execute(SQL(statement).format(**names), parameters)
            return answer.fetchall() if answer.description else []

        yield run


def contents(database: Database, row: AccountRow) -> dict[bytes, bytes]:
    return dict(database.ranges(row.id, [EVERYTHING], TIMEOUT))


def test_a_new_account_is_the_claims(database: Database) -> None:
    claim = new_claim("the bot")
    row = database.take_over("@alice:example.org", "D", claim, TIMEOUT)
    assert row == AccountRow(
        claim.new_id, "@alice:example.org", "D", 1, claim.incarnation, 0, "the bot", 1_767_323_045_678_901
    )
    assert type(row) is AccountRow
    assert database.find("@alice:example.org", "D", TIMEOUT) == row


def test_an_account_that_is_taken_over_keeps_its_id_sequence_and_rows(database: Database) -> None:
    before = commit(database, take_over(database), {b"key": b"value"})
    claim = new_claim("another")
    row = database.take_over(before.user_id, before.device_id, claim, TIMEOUT)
    assert row == before._replace(epoch=2, incarnation=claim.incarnation, owner="another")
    assert contents(database, row) == {b"key": b"value"}


def test_finding_an_account_changes_nothing(database: Database) -> None:
    assert database.find("@alice:example.org", "D", TIMEOUT) is None
    assert database.accounts(TIMEOUT) == []


def test_the_largest_numbers_and_odd_names_are_kept(database: Database) -> None:
    largest = 2**63 - 1
    claim = new_claim("ö" * 255)._replace(new_id=largest, incarnation=largest, since=largest)
    row = database.take_over("@ß\u0905\U0001d56c", "'\"\\%_$1", claim, TIMEOUT)
    assert row == AccountRow(largest, "@ß\u0905\U0001d56c", "'\"\\%_$1", 1, largest, 0, "ö" * 255, largest)
    assert database.accounts(TIMEOUT) == [row]


def test_accounts_are_told_apart_byte_by_byte(database: Database) -> None:
    names = [("@a:b", "D"), ("@a:b", "d"), ("@A:b", "D"), ("@a:b", "D "), ("@ä:b", "D"), ("@a\u0308:b", "D")]
    rows = [take_over(database, *name) for name in names]
    assert [row[1:4] for row in rows] == [(*name, 1) for name in names]
    assert len({row.id for row in rows}) == len(names)
    assert [database.find(*name, TIMEOUT) for name in names] == rows
    assert sorted(database.accounts(TIMEOUT)) == sorted(rows)


@pytest.mark.parametrize(
    "look",
    [lambda database: database.find("@alice:example.org", "ALICEDEVICE", TIMEOUT), lambda each: each.accounts(TIMEOUT)],
    ids=["find", "accounts"],
)
def test_an_account_without_its_ownership_is_an_error_and_not_absent(
    database: Database, execute: Callable[..., list[Any]], look: Callable[[Database], object]
) -> None:
    take_over(database)
    take_over(database, "@bob:example.org")
    execute("DELETE FROM {ownership} WHERE account_id = (SELECT id FROM {account} WHERE user_id ^@ '@alice')")
    with pytest.raises(
        SchemaError, match=r"ownership of @alice:example.org ALICEDEVICE is missing .* restore a backup"
    ):
        look(database)


def test_an_ownership_without_its_account_is_an_error_and_not_absent(
    database: Database, execute: Callable[..., list[Any]]
) -> None:
    take_over(database)
    execute("DELETE FROM {account}")
    with pytest.raises(SchemaError, match=r"the account of an ownership is missing .* restore a backup"):
        database.accounts(TIMEOUT)


def test_first_openers_at_the_same_time_get_one_account(database: Database) -> None:
    for number in range(10):
        rows = together([partial(take_over, database, "@a:b", f"D{number}")] * 4)
        assert len({row.id for row in rows}) == 1
        assert sorted(row.epoch for row in rows) == [1, 2, 3, 4]


def test_taking_over_and_deleting_at_the_same_time_leave_all_of_an_account_or_nothing(
    database: Database, execute: Callable[..., list[Any]]
) -> None:
    for _ in range(30):
        row = commit(database, take_over(database), {b"key": b"value"})
        taken, _ = together([partial(take_over, database), partial(database.delete, row.id, TIMEOUT)])
        parts = [sorted(execute(f"SELECT {column} FROM {{{table}}}")) for table, column in PARTS.items()]
        # The account was deleted before it was made again, or after it was taken over.
        if (taken.epoch, taken.sequence) == (1, 0):
            assert taken.id != row.id
            assert parts == [[(taken.id,)], [(taken.id,)], []]
            database.delete(taken.id, TIMEOUT)
        else:
            assert (taken.id, taken.epoch, taken.sequence) == (row.id, 2, 1)
            assert parts == [[], [], []]


def test_deleting_waits_for_a_take_over_before_it_locks_what_that_needs(
    postgres_database: PostgresDatabase, database: Database, database_schema: str
) -> None:
    """Or each of the two would wait for the other."""
    row = take_over(database)
    account, ownership = Identifier(database_schema, "account"), Identifier(database_schema, "ownership")
    with postgres_database.connect() as other, postgres_database.connect() as watching:
        other.execute(SQL("BEGIN; UPDATE {} SET user_id = user_id").format(account))
        deleting = start(partial(database.delete, row.id, TIMEOUT))
        blocked = SQL("SELECT count(*) FROM pg_stat_activity WHERE {} = ANY(pg_blocking_pids(pid))").format(
            other.info.backend_pid
        )
        wait_until(lambda: watching.execute(blocked).fetchone() == (1,))
        other.execute(SQL("UPDATE {} SET epoch = epoch + 1; COMMIT").format(ownership))
    result_of(deleting)
    assert database.accounts(TIMEOUT) == []


#: The tables in which an account has rows, and what names it there.
PARTS: Final = {"account": "id", "ownership": "account_id", "record": "account_id"}


def test_no_batch_leaves_rows_behind_when_its_account_is_deleted(
    database: Database, execute: Callable[..., list[Any]]
) -> None:
    other = take_over(database, "@bob:example.org")
    commit(database, other, {b"key": b"bob's"})
    for number in range(30):
        row = take_over(database)
        batches = [next_batch(row._replace(sequence=each), {b"%d" % each: b"value"}) for each in range(3)]

        def write(row: AccountRow = row, batches: list[Any] = batches) -> None:
            for batch in batches:
                database.commit(row.id, batch, TIMEOUT)

        together([write, partial(database.delete, row.id, TIMEOUT)])
        assert database.commit(row.id, batches[0], TIMEOUT) is None, number
        assert execute("SELECT account_id FROM {record}") == [(other.id,)]
        assert database.accounts(TIMEOUT) == [other._replace(sequence=1)]


def test_values_of_every_size_are_kept_under_keys_of_any_bytes(database: Database) -> None:
    stored = dict(zip(KEYS, itertools.cycle(VALUES), strict=False))
    row = commit(database, take_over(database), stored)
    assert contents(database, row) == stored
    assert list(contents(database, row)) == KEYS
    assert dict(database.get(row.id, KEYS, TIMEOUT)) == stored
    for key in KEYS:
        assert database.get(row.id, [key], TIMEOUT) == [Row(key, stored[key])]
    row = commit(database, row, dict.fromkeys(KEYS[::2], b"replaced"), KEYS[1::2])
    assert contents(database, row) == dict.fromkeys(KEYS[::2], b"replaced")


def test_a_range_has_the_keys_from_its_start_to_before_its_end(database: Database) -> None:
    row = commit(database, take_over(database), {key: key for key in KEYS})
    bounds = [b"\x00", *KEYS, *(key + b"\x00" for key in KEYS if len(key) < 1_024)]
    for start_key, stop in itertools.product(bounds, [*bounds, None]):
        expected = [Row(key, key) for key in KEYS if key >= start_key and (stop is None or key < stop)]
        within = Range(start_key, stop)
        assert database.ranges(row.id, [within], TIMEOUT) == expected
        assert database.page(row.id, within, 3, TIMEOUT) == expected[:3]


def test_several_ranges_are_answered_in_key_order(database: Database) -> None:
    row = commit(database, take_over(database), {b"%04d" % number: b"" for number in range(1_000)})
    ranges = [Range(b"%04d" % number, b"%04d" % (number + 3)) for number in range(0, 990, 10)]
    expected = [b"%04d" % (tens + number) for tens in range(0, 990, 10) for number in range(3)]
    assert [key for key, _ in database.ranges(row.id, [*ranges, Range(b"0995", None)], TIMEOUT)] == [
        *expected,
        *(b"%04d" % number for number in range(995, 1_000)),
    ]
    assert database.ranges(row.id, [], TIMEOUT) == []
    assert database.get(row.id, [], TIMEOUT) == []


def test_a_hundred_thousand_keys_are_looked_up_in_one_snapshot(database: Database) -> None:
    wanted = [number.to_bytes(4) for number in range(100_000)]
    changing = [*wanted[:20], *wanted[-20:]]
    row = commit(database, take_over(database), dict.fromkeys(changing, b"0"))
    stop = threading.Event()

    def write() -> None:
        owner = row
        while not stop.is_set():
            owner = commit(database, owner, dict.fromkeys(changing, b"%d" % owner.sequence))

    writer = start(write)
    snapshots = []
    for _ in range(10):
        found = database.get(row.id, wanted, PATIENCE)
        assert [each.key for each in sorted(found)] == changing
        snapshots.append({each.value for each in found})
    stop.set()
    result_of(writer)
    assert [len(values) for values in snapshots] == [1] * 10
    assert len(set.union(*snapshots)) > 1, "nothing was written meanwhile"


REFUSALS: Final[dict[str, Callable[[AccountRow], AccountRow]]] = {
    "another epoch": lambda row: row._replace(epoch=row.epoch + 1),
    "an older epoch": lambda row: row._replace(epoch=row.epoch - 1),
    "another incarnation": lambda row: row._replace(incarnation=row.incarnation - 1),
    "committed already": lambda row: row._replace(sequence=row.sequence - 1),
    "long ago": lambda row: row._replace(sequence=row.sequence - 2),
    "ahead": lambda row: row._replace(sequence=row.sequence + 1),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_batch_that_is_not_the_owners_next_changes_nothing_and_returns_the_row(
    database: Database, refusal: str
) -> None:
    row = commit(database, take_over(database), {b"kept": b"1"})
    row = commit(database, row, {b"other": b"2"})
    batch = next_batch(REFUSALS[refusal](row), {b"kept": b"x", b"new": b"x"}, [b"other"])
    assert database.commit(row.id, batch, TIMEOUT) == row
    assert contents(database, row) == {b"kept": b"1", b"other": b"2"}


def test_the_row_tells_that_a_database_went_back(database: Database, execute: Callable[..., list[Any]]) -> None:
    older = commit(database, take_over(database), {b"key": b"1"})
    newest = commit(database, commit(database, older), {b"key": b"3"})
    execute("UPDATE {ownership} SET sequence = %s", older.sequence)
    assert database.commit(newest.id, next_batch(newest, {b"key": b"4"}), TIMEOUT) == older


def test_the_row_tells_who_took_an_account_over(database: Database) -> None:
    row = take_over(database)
    newer = take_over(database)
    assert database.commit(row.id, next_batch(row, {b"key": b"1"}), TIMEOUT) == newer
    assert contents(database, row) == {}


def test_a_batch_of_no_account_has_no_row(database: Database) -> None:
    row = take_over(database)
    assert database.commit(row.id + 1, next_batch(row, {b"key": b"1"}), TIMEOUT) is None
    database.delete(row.id + 1, TIMEOUT)
    assert database.accounts(TIMEOUT) == [row]


@pytest.mark.parametrize(
    ("puts", "deletes"), [({}, []), ({b"new": b"1"}, []), ({}, [b"old", b"none"]), ({b"new": b"1"}, [b"old", b"none"])]
)
def test_a_batch_may_hold_puts_or_deletes_or_neither(
    database: Database, puts: dict[bytes, bytes], deletes: list[bytes]
) -> None:
    row = commit(database, take_over(database), {b"old": b"1", b"stays": b"1"})
    row = commit(database, row, puts, deletes)
    before = {b"old": b"1", b"stays": b"1"}
    assert contents(database, row) == {key: value for key, value in (before | puts).items() if key not in deletes}


@pytest.fixture
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portions, "_PORTION", 1_000)


LARGE: Final = {b"%03d" % number: b"x" * 300 for number in range(20)}


@pytest.mark.usefixtures("small_portions")
def test_a_batch_that_is_sent_in_portions_is_one_all_the_same(
    database: Database, execute: Callable[..., list[Any]]
) -> None:
    stays = {b"old%d" % number: b"1" for number in range(400)}
    row = commit(database, take_over(database), stays)
    batch = next_batch(row, LARGE, list(stays))
    assert len(portions.portions(batch)) > 5
    row = commit(database, row, LARGE, list(stays))
    assert contents(database, row) == LARGE
    # Sent again, it was committed already.
    execute("DELETE FROM {record}")
    assert database.commit(row.id, batch, TIMEOUT) == row
    assert contents(database, row) == {}


@pytest.mark.usefixtures("small_portions")
def test_a_batch_whose_last_portion_is_refused_is_rolled_back(
    database: Database, execute: Callable[..., list[Any]]
) -> None:
    row = take_over(database)
    execute("ALTER TABLE {record} ADD CHECK (key <> '019')")
    with pytest.raises(CryptoStoreError, match="23514") as refused:
        commit(database, row, LARGE)
    assert not isinstance(refused.value, BackendUnavailable)
    assert contents(database, row) == {}
    execute("ALTER TABLE {record} DROP CONSTRAINT record_key_check")
    assert contents(database, commit(database, row, LARGE)) == LARGE


def test_a_batch_for_which_there_is_no_connection_was_not_sent(
    postgres_database: PostgresDatabase, database_schema: str
) -> None:
    database = postgres_database.open(database_schema, pool_size=1)
    row = take_over(database)
    with database._connections.use(TIMEOUT), pytest.raises(BackendUnavailable, match="raise pool_size") as refused:
        database.commit(row.id, next_batch(row), 0.1)
    assert not refused.value.outcome_unknown
    database.close()


def test_a_batch_for_which_no_server_is_there_was_not_sent(
    postgres_database: PostgresDatabase, database_schema: str
) -> None:
    with Proxy(postgres_database.address) as proxy:
        database = postgres_database.open(database_schema, proxy.port)
        row = take_over(database)
        proxy.refuse()
        proxy.cut()
        outcomes = [outcome_of(database, row) for _ in range(2)]
    # The first was on its way when the connection was found dead.
    assert outcomes == [True, False]
    database.close()


def outcome_of(database: Database, row: AccountRow) -> bool:
    """Whether the outcome of a batch is unknown, which fails."""
    with pytest.raises(BackendUnavailable) as unavailable:
        database.commit(row.id, next_batch(row), TIMEOUT)
    return unavailable.value.outcome_unknown


def test_a_server_that_is_not_there_is_one_attempt(postgres_database: PostgresDatabase) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(BackendUnavailable, match="cannot be reached"):
            postgres_database.open("anything", nobody.getsockname()[1])


def test_after_closing_every_call_says_so(database: Database) -> None:
    database.close()
    for call in (database.accounts, database.health, database.schema):
        with pytest.raises(StoreClosed):
            call(TIMEOUT)


def test_an_unreadable_account_hides_no_other(
    postgres_database: PostgresDatabase,
    database: Database,
    database_schema: str,
    execute: Callable[..., list[Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for number in range(4):
        take_over(database, "@many:example.org", str(number))
    execute("UPDATE {account} SET user_id = '' WHERE device_id = '1'")
    execute("UPDATE {ownership} SET since = %s FROM {account} WHERE id = account_id AND device_id = '2'", 2**63 - 1)
    with open_backend(postgres_database.url(database_schema)) as backend:
        assert [account.device_id for account in backend.accounts()] == ["0", "3"]
    assert len(caplog.messages) == 2
