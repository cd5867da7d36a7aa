"""Mutants of the PostgreSQL backend that break where a call is held or interrupted in its middle."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest

from cryptostore import AccountRow, BackendUnavailable, Batch, Health, Row
from cryptostore_postgres import database
from cryptostore_postgres.connecting import Connection, Connector
from cryptostore_postgres.connections import Connections
from cryptostore_postgres.database import PostgresDatabase
from cryptostore_postgres.options import PostgresOptions
from cryptostore_postgres.pipeline import Rows, Statement, run
from cryptostore_postgres.portions import Portion
from cryptostore_postgres.transactions import begin, write

from .postgres import _change_sql
from .registry import mutant

#: In the place of what an update asks for, which takes the parameters all the same.
_UNASKED = " AND $3::{int8} IS NOT NULL AND $4::{int8} IS NOT NULL AND $5::{int8} IS NOT NULL"


@mutant("OWNERSHIP-11", backend="postgres")
def owner_checked_before_the_update(patch: pytest.MonkeyPatch) -> None:
    """The account's row is read without a lock, and then updated unconditionally."""
    asked = " AND epoch {eq} $3::{int8} AND incarnation {eq} $4::{int8} AND sequence {eq} $5::{int8}"
    _change_sql(patch, "_CLAIM", (asked, _UNASKED))
    original = PostgresDatabase._committed

    def committed(self: PostgresDatabase, connection: Connection, account_id: int, batch: Batch) -> AccountRow | None:
        [rows] = run(connection, Statement(self._statements.accounts))
        found = next((AccountRow._make(row) for row in rows if row[0] == account_id), None)
        if found is None or found[3:6] != (batch.epoch, batch.incarnation, batch.number - 1):
            return found
        return original(self, connection, account_id, batch)

    patch.setattr(PostgresDatabase, "_committed", committed)


@mutant("CONCURRENCY-9", backend="postgres")
def look_up_in_chunks_of_500(patch: pytest.MonkeyPatch) -> None:
    """Many keys are asked for 500 at a time, each time with a snapshot of its own."""
    original = PostgresDatabase.get

    def get(self: PostgresDatabase, account_id: int, keys: Sequence[bytes], timeout: float) -> list[Row]:
        chunks = [keys[at : at + 500] for at in range(0, len(keys), 500)]
        return [row for chunk in chunks for row in original(self, account_id, chunk, timeout)]

    patch.setattr(PostgresDatabase, "get", get)


@mutant("CONCURRENCY-10", backend="postgres")
def large_batch_in_parts(patch: pytest.MonkeyPatch) -> None:
    """A batch above one megabyte is several transactions, of which the last has its number."""
    original = PostgresDatabase._committed

    def committed(self: PostgresDatabase, connection: Connection, account_id: int, batch: Batch) -> AccountRow | None:
        if sum(len(row.value) for row in batch.puts) < 1_000_000:
            return original(self, connection, account_id, batch)
        middle = len(batch.puts) // 2
        owner = [batch.epoch, batch.incarnation, batch.number - 1]
        first = Portion(batch.puts[:middle], ())
        write(connection, self._storing(first, [batch.number - 1, account_id, *owner, batch.written_at]))
        return original(self, connection, account_id, batch._replace(puts=batch.puts[middle:]))

    patch.setattr(PostgresDatabase, "_committed", committed)


@mutant("NUMBERING-11", backend="postgres")
def interrupted_session_goes_back_into_the_pool(patch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between the two halves of a batch leaves the transaction open, and the pool gives it to the next batch."""
    use = Connections.use

    @contextmanager
    def use_and_keep(self: Connections, timeout: float) -> Iterator[Connection]:
        interrupt: BaseException | None = None
        with use(self, timeout) as connection:
            try:
                yield connection
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt

    def halves(batch: Batch) -> list[Portion]:
        middle = len(batch.puts) // 2
        return [Portion(batch.puts[:middle], ()), Portion(batch.puts[middle:], batch.deletes)]

    patch.setattr(Connections, "use", use_and_keep)
    patch.setattr(database, "portions", halves)


@mutant("LIFECYCLE-8", backend="postgres")
def transaction_left_open_by_reads(patch: pytest.MonkeyPatch) -> None:
    """A read begins a transaction, which the next write on its connection ends."""

    def read(connection: Connection, statement: Statement, *, by_index: bool = True) -> Rows:
        return run(connection, *begin(connection, by_index=by_index), statement)[-1]

    patch.setattr(database, "read", read)


@mutant("FAULTS-14", backend="postgres")
def connection_left_open_by_each_failed_batch(patch: pytest.MonkeyPatch) -> None:
    """After an outage another connection is made, beside that which the pool makes, and closed with the database."""
    original, close = PostgresDatabase.commit, PostgresDatabase.close

    def commit(self: PostgresDatabase, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        try:
            return original(self, account_id, batch, timeout)
        except BackendUnavailable:
            another = self._connections._connector.connect(time.monotonic() + timeout)
            self.__dict__.setdefault("others", []).append(another)
            raise

    def close_all(self: PostgresDatabase) -> None:
        for another in self.__dict__.get("others", []):
            another.close()
        close(self)

    patch.setattr(PostgresDatabase, "commit", commit)
    patch.setattr(PostgresDatabase, "close", close_all)


@mutant("SECRETS-9", backend="postgres")
def host_name_not_checked(patch: pytest.MonkeyPatch) -> None:
    """A certificate of the right authority will do, whatever name it is for."""
    original = Connector.__init__

    def init(connector: Connector, options: PostgresOptions) -> None:
        named = dict(options.connection)
        if named.get("sslmode") == "verify-full":
            named["sslmode"] = "verify-ca"
        original(connector, replace(options, connection=named))

    patch.setattr(Connector, "__init__", init)


@mutant("NUMBERING-12", backend="postgres")
def committed_already_read_from_the_primary(patch: pytest.MonkeyPatch) -> None:
    """A batch that is there already is answered by a look at the row, whether its standby has it or not."""

    def confirmed(self: PostgresDatabase, connection: Connection, account_id: int) -> AccountRow | None:
        [rows] = run(connection, Statement(self._statements.accounts))
        return next((AccountRow._make(row) for row in rows if row[0] == account_id), None)

    patch.setattr(PostgresDatabase, "_confirmed", confirmed)


@mutant("CAPABILITIES-4", backend="postgres")
def durability_not_asked_for(patch: pytest.MonkeyPatch) -> None:
    """That the server waits for its disk is taken for granted."""
    original = PostgresDatabase.health

    def health(self: PostgresDatabase, timeout: float) -> Health:
        return replace(original(self, timeout), not_durable="")

    patch.setattr(PostgresDatabase, "health", health)
