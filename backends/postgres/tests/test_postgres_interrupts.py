"""An interrupt between any two lines of a call: no session is lost, or used again in the middle of what it did."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest
from psycopg.pq import TransactionStatus

import cryptostore_postgres
import interrupted_calls
from cryptostore import AccountRow, BackendUnavailable
from cryptostore_postgres import portions
from cryptostore_postgres.connections import Connections
from cryptostore_postgres.database import PostgresDatabase as Database
from postgres_database import PostgresDatabase
from raw_databases import TIMEOUT, next_batch, take_over

PACKAGE: Final = str(Path(cryptostore_postgres.__file__).parent)
POOL_SIZE: Final = 2


class Interrupt:
    """Raises KeyboardInterrupt before the line of the package that is run after so many others."""

    def __init__(self, after: int) -> None:
        self._left = after

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> Interrupt | None:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            self._left -= 1
            if self._left == 0:
                raise KeyboardInterrupt
        return self


def is_interrupted(call: Callable[[], object], after: int) -> bool:
    """Whether the call takes so many lines that it is interrupted."""
    before = sys.gettrace()
    sys.settrace(Interrupt(after))
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.fixture
def database(postgres_database: PostgresDatabase, database_schema: str) -> Iterator[Database]:
    opened = postgres_database.open(database_schema, pool_size=POOL_SIZE)
    yield opened
    opened.close()


# One that is lost between two lines is closed with the object, which psycopg warns of.
@pytest.mark.filterwarnings("ignore:.* was deleted while still open:ResourceWarning")
@pytest.mark.parametrize("portion", [100, 1_000_000], ids=["many portions", "one portion"])
def test_an_interrupt_anywhere_in_a_commit_leaves_a_whole_batch_or_none(
    database: Database, monkeypatch: pytest.MonkeyPatch, portion: int
) -> None:
    monkeypatch.setattr(portions, "_PORTION", portion)
    row = take_over(database)
    puts = {b"%d" % number: b"x" * 90 for number in range(3)}
    after = 1
    while is_interrupted(partial(database.commit, row.id, next_batch(row, puts), TIMEOUT), after):
        assert len(database._connections._calls) == 0, f"a connection is gone after {after} lines"
        states = {each.pgconn.transaction_status for each in database._connections._idle}
        assert states <= {TransactionStatus.IDLE}, f"after {after} lines"
        row = found(database, row)
        after += 1
    assert after > 50
    assert len(database.get(row.id, sorted(puts), TIMEOUT)) == len(puts)


@pytest.mark.filterwarnings("ignore:.* was deleted while still open:ResourceWarning")
@pytest.mark.filterwarnings("ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_anywhere_in_a_use_locks_no_other_thread_out(database: Database) -> None:
    connections = database._connections
    # So that no use that is interrupted starts a thread: Python's own start of one cannot be interrupted anywhere.
    use(connections)
    # An RLock is always free to the thread that holds it.
    with ThreadPoolExecutor(1) as other:
        after = 1
        while interrupted_calls.is_interrupted(partial(use, connections), after):
            for guard in (connections._guard, connections._watchdog._guard):
                assert other.submit(is_free, guard).result(), f"a lock is held after {after} calls"
            use(connections)
            after += 1
    assert after > 50


def test_an_interrupt_anywhere_in_a_wait_for_a_connection_is_told_as_it_is(database: Database) -> None:
    connections = database._connections

    def wait() -> None:
        with contextlib.suppress(BackendUnavailable), connections.use(0.01):
            pass

    after = 1
    with connections.use(TIMEOUT), connections.use(TIMEOUT):
        while interrupted_calls.is_interrupted(wait, after):
            assert connections.count().waiting == 0
            after += 1
        assert len(connections._calls) == POOL_SIZE
    assert after > 25
    use(connections)


def use(connections: Connections) -> None:
    with connections.use(TIMEOUT):
        pass


def is_free(guard: Any) -> bool:
    """Whether this thread gets the lock, which it gives back."""
    if guard.acquire(timeout=1):
        guard.release()
        return True
    return False


def found(database: Database, before: AccountRow) -> AccountRow:
    """The account's row, after a batch that was committed or not."""
    row = database.find(before.user_id, before.device_id, TIMEOUT)
    assert row in (before, before._replace(sequence=before.sequence + 1))
    return row
