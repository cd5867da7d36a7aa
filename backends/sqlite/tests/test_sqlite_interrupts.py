"""An interrupt anywhere in a call: the next one may write, and closing does not wait for ever."""

from __future__ import annotations

from functools import partial

import pytest

from cryptostore import AccountRow, Batch
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


def test_closing_does_not_wait_for_ever_for_what_an_interrupt_left(database: SQLiteDatabase) -> None:
    database._connections._timeout = 0.1
    with database._connections.writing(TIMEOUT):
        database.close()
