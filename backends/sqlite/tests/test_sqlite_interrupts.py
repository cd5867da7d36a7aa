"""An interrupt anywhere in a call: the next one may write, and closing does not wait for ever."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event

import pytest

from cryptostore import AccountRow, Batch, StoreClosed
from cryptostore_sqlite import opened
from cryptostore_sqlite.database import SQLiteDatabase
from interrupted_calls import is_interrupted
from raw_databases import TIMEOUT, next_batch, take_over


# A reader that is lost between two calls is closed with the object, which newer Pythons warn of.
@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
@pytest.mark.filterwarnings("ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_anywhere_in_a_commit_leaves_a_whole_batch_or_none(database: SQLiteDatabase) -> None:
    row = take_over(database)
    puts = {b"%d" % number: b"value" for number in range(3)}
    after = 1
    while is_interrupted(partial(commit, database, row.id, next_batch(row, puts, [b"gone"])), after):
        with database._connections._turns.one(0) as is_in:
            assert is_in, f"the turn to write is gone after {after} calls"
        assert not database._connections._writer.in_transaction
        row = found(database, row)
        after += 1
    assert after > 50
    assert len(database.get(row.id, sorted(puts), TIMEOUT)) == len(puts)


def commit(database: SQLiteDatabase, account_id: int, batch: Batch) -> None:
    """While an interrupt is looked at, nobody writes in the middle of the transaction that it ended."""
    try:
        database.commit(account_id, batch, TIMEOUT)
    except KeyboardInterrupt:
        with database._connections._turns.one(0) as is_in:
            assert not (is_in and database._connections._writer.in_transaction)
        raise


def found(database: SQLiteDatabase, before: AccountRow) -> AccountRow:
    """The account's row, after a batch that was committed or not."""
    row = database.find(before.user_id, before.device_id, TIMEOUT)
    assert row in (before, before._replace(sequence=before.sequence + 1))
    return row


def test_what_closing_waits_for_in_vain_closes_the_database_at_its_end(database: SQLiteDatabase, path: Path) -> None:
    connections = database._connections
    connections._timeout = 0.1
    with connections.writing(TIMEOUT) as writer:
        database.close()
        take_a_row(writer)
        assert connections._file in opened._open
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        take_a_row(writer)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert connections._file not in opened._open
    database.close()


def test_a_thread_that_waits_to_write_is_refused_after_closing(database: SQLiteDatabase, path: Path) -> None:
    connections = database._connections
    connections._timeout = 0
    waits = Event()

    def wait() -> None:
        waits.set()
        with connections.writing(60):
            pass

    with ThreadPoolExecutor() as pool:
        with connections.writing(TIMEOUT):
            later = pool.submit(wait)
            waits.wait()
            database.close()
        with pytest.raises(StoreClosed):
            later.result(60)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def take_a_row(writer: sqlite3.Connection) -> None:
    """Read something, which a closed connection cannot."""
    writer.execute("SELECT 1").fetchone()
