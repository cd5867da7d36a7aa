"""The raw interface: accounts, bytes under keys, numbered batches."""

from __future__ import annotations

import itertools
import random
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import pytest
from psycopg.sql import SQL, Identifier

from cryptostore import (
    Account,
    AccountRow,
    BackendUnavailable,
    CryptoStoreError,
    Range,
    Row,
    SchemaError,
    StoreClosed,
    new_pickle_key,
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
ALICE, NEW = Account("@alice:example.org", "A"), Account("@new:example.org", "N")
KEY: Final = new_pickle_key()

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


def test_the_largest_numbers_and_odd_names_are_kept(database: Database) -> None:
    largest = 2**63 - 1
    claim = new_claim("ö" * 255)._replace(new_id=largest, incarnation=largest, since=largest)
    row = database.take_over("@ß\u0905\U0001d56c", "'\"\\%_$1", claim, TIMEOUT)
    assert row == AccountRow(largest, "@ß\u0905\U0001d56c", "'\"\\%_$1", 1, largest, 0, "ö" * 255, largest)
    assert database.accounts(TIMEOUT) == [row]


def test_an_account_without_its_ownership_is_an_error_and_in_the_way_of_no_other(
    database: Database, execute: Callable[..., list[Any]]
) -> None:
    row = commit(database, take_over(database), {b"key": b"value"})
    bob = commit(database, take_over(database, "@bob:example.org"), {b"key": b"value"})
    execute("DELETE FROM {ownership} WHERE account_id = %s", row.id)
    torn = AccountRow(row.id, row.user_id, row.device_id, 0, 0, 0, "", 0)
    assert sorted(database.accounts(TIMEOUT), key=lambda each: each.user_id) == [torn, bob]
    assert database.find(bob.user_id, bob.device_id, TIMEOUT) == bob
    with pytest.raises(SchemaError, match=r"ownership of @alice:example.org ALICEDEVICE is missing .*") as caught:
        database.find(row.user_id, row.device_id, TIMEOUT)
    remove_what_is_left(caught.value, execute)
    assert database.find(row.user_id, row.device_id, TIMEOUT) is None
    assert contents(database, row) == {}
    assert contents(database, bob) == {b"key": b"value"}


def test_while_an_ownership_has_no_account_none_is_made_and_all_others_open(
    postgres_database: PostgresDatabase, database_schema: str, execute: Callable[..., list[Any]]
) -> None:
    with open_backend(postgres_database.url(database_schema)) as backend:
        take_over(backend.database, "@bob:example.org")
        backend.open_store(ALICE, pickle_key=KEY).close()
        execute("DELETE FROM {account} WHERE user_id = '@bob:example.org'")
    with open_backend(postgres_database.url(database_schema)) as backend:
        backend.open_store(ALICE, pickle_key=KEY).close()
        assert (list(backend.accounts()), backend.listing().left_out) == ([ALICE], 1)
        with pytest.raises(SchemaError, match=r"the account of an ownership is missing .* restore a backup") as caught:
            backend.open_store(NEW, pickle_key=KEY)
        remove_what_is_left(caught.value, execute)
        backend.open_store(NEW, pickle_key=KEY).close()
        assert (list(backend.accounts()), backend.listing().left_out) == ([ALICE, NEW], 0)


def remove_what_is_left(error: SchemaError, execute: Callable[..., list[Any]]) -> None:
    for statement in str(error).partition(" with: ")[2].split("; "):
        execute(statement)


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
