"""A fail-over to a synchronous standby: nothing that was acknowledged is lost, and the store goes on by itself."""

from __future__ import annotations

import threading
from functools import partial
from typing import Final

import pytest
from psycopg.sql import SQL, Identifier

from cryptostore import Backend, BackendUnavailable, Changes, CryptoStore, SyncToken, Value, open_backend
from cryptostore_contract.handles import own
from cryptostore_contract.samples import ALICE
from cryptostore_contract.waiting import finishes, result_of, start
from cryptostore_postgres.connecting import Connection
from cryptostore_postgres.database import PostgresDatabase as Database
from postgres_database import DATABASE
from postgres_server import PostgresServer
from postgres_standby import PostgresStandby

#: Seconds that a fail-over may take, on a slow machine too.
LONG: Final = 100.0


class Writer:
    """Applies one small batch after the other, and knows which of them were acknowledged."""

    def __init__(self, store: CryptoStore) -> None:
        self.acknowledged = 0
        self.progress = threading.Condition()
        self._store = store
        self._stop = threading.Event()
        self._work = start(self._write)

    def wait_for(self, number: int) -> None:
        """Until this batch was acknowledged."""
        with self.progress:
            assert self.progress.wait_for(lambda: self.acknowledged >= number, LONG), "no batch was acknowledged"

    def stop(self) -> int:
        """Stop between two batches. How many were acknowledged; raises what a batch raised."""
        self._stop.set()
        result_of(self._work)
        return self.acknowledged

    def _write(self) -> None:
        while not self._stop.is_set():
            number = self.acknowledged + 1
            self._store.apply(Changes([SyncToken(str(number)), Value("batch", f"{number:06}", b"whole")]))
            with self.progress:
                self.acknowledged = number
                self.progress.notify_all()


def assert_whole(store: CryptoStore, number: int) -> None:
    """All batches up to this one are there, and no other."""
    assert store.get(SyncToken, [()])[()].token == str(number)
    assert [value.name for value in store.scan(Value)] == [f"{each:06}" for each in range(1, number + 1)]


def test_a_fail_over_loses_no_acknowledged_batch_and_the_lost_primary_gets_none(
    primary: PostgresServer, standby: PostgresStandby, url_of_both: str
) -> None:
    with open_backend(url_of_both, deadline=LONG) as backend:
        writer = Writer(own(backend))
        writer.wait_for(20)
        primary.kill()
        at_the_kill = writer.acknowledged
        standby.promote()
        # The batch that was in flight is sent again, and counts once, whether or not it had reached the standby.
        writer.wait_for(at_the_kill + 20)
        acknowledged = writer.stop()
    with standby.connect(DATABASE) as connection:
        table = Identifier("cryptostore", "ownership")
        assert connection.execute(SQL("SELECT sequence FROM {}").format(table)).fetchall() == [(acknowledged,)]
    with open_backend(url_of_both) as backend:
        assert_whole(own(backend), acknowledged)
    primary.start()
    # It is the first host of the URL and takes writes, but has no standby any more that would confirm them.
    with open_backend(url_of_both, deadline=8) as backend:
        store = own(backend)
        assert_whole(store, acknowledged)
    with standby.connect(DATABASE) as connection:
        epoch = connection.execute(SQL("SELECT epoch FROM {}").format(Identifier("cryptostore", "ownership")))
        assert epoch.fetchall() == [(store.ownership.epoch,)]


def test_a_batch_that_the_old_primary_cannot_confirm_goes_to_the_new_one(
    primary: PostgresServer, standby: PostgresStandby, url_of_both: str
) -> None:
    """The agent that should have stopped the old primary is dead, too: it still takes writes, and never ends one."""
    with open_backend(url_of_both, deadline=8) as backend:
        store = own(backend)
        store.apply(Changes([SyncToken("1"), Value("batch", "000001", b"whole")]))
        standby.promote()
        for number in (2, 3):
            finishes(partial(store.apply, Changes([SyncToken(str(number)), Value("batch", f"{number:06}", b"whole")])))
        # The first of them waited for the old primary; the second found the new one at once.
        assert [each.host.connection["port"] for each in connections_of(backend)] == [str(standby.port)]
        assert_whole(store, 3)


def connections_of(backend: Backend) -> list[Connection]:
    """Those that are idle."""
    assert isinstance(backend.database, Database)
    return backend.database._connections._idle


def test_a_batch_that_only_the_lost_primary_had_is_not_there_and_was_not_acknowledged(
    primary: PostgresServer, standby: PostgresStandby, url_of_both: str
) -> None:
    with open_backend(url_of_both, deadline=2) as backend:
        store = own(backend)
        store.apply(Changes([SyncToken("1"), Value("batch", "000001", b"whole")]))
        batch = Changes([SyncToken("2"), Value("batch", "000002", b"whole")])
        with standby.frozen(), pytest.raises(BackendUnavailable):
            # It is on the primary's disk, and waits for the standby in vain.
            finishes(lambda: store.apply(batch))
        with standby.frozen():
            primary.kill()
        standby.promote()
        with open_backend(url_of_both) as other:
            found = other.accounts()[ALICE].sequence
            assert found in (1, 2), "the standby may have got the batch when it thawed, but only whole"
        finishes(lambda: store.apply(batch))
    with open_backend(url_of_both) as backend:
        assert_whole(own(backend), 2)
