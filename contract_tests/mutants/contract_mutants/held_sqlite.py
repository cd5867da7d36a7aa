"""Mutants of the SQLite backend that break where a call is held in its middle."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cryptostore import AccountRow, Batch, Row
from cryptostore_sqlite import database
from cryptostore_sqlite.database import SQLiteDatabase

from .registry import mutant


@mutant("OWNERSHIP-11", backend="sqlite")
def owner_checked_before_the_lock(patch: pytest.MonkeyPatch) -> None:
    """The account's row is read in a transaction of its own, and then updated unconditionally."""

    def commit(self: SQLiteDatabase, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        with self._connections.reading(timeout) as connection:
            row = database._account_row(connection, database._BY_ID, account_id)
        if row is None or row[3:6] != (batch.epoch, batch.incarnation, batch.number - 1):
            return row
        with self._connections.writing(timeout, checkpoint=bool(batch.deletes)) as connection:
            connection.executemany(database._PUT, ((account_id, key, value) for key, value in batch.puts))
            connection.executemany(database._DELETE, ((account_id, key) for key in batch.deletes))
            connection.execute(database._ADVANCE, (batch.number, account_id))
        return row._replace(sequence=batch.number)

    patch.setattr(SQLiteDatabase, "commit", commit)


@mutant("CONCURRENCY-9", backend="sqlite")
def look_up_in_chunks_of_500(patch: pytest.MonkeyPatch) -> None:
    """Many keys are asked for 500 at a time, each time with a snapshot of its own."""
    original = SQLiteDatabase.get

    def get(self: SQLiteDatabase, account_id: int, keys: Sequence[bytes], timeout: float) -> list[Row]:
        chunks = [keys[at : at + 500] for at in range(0, len(keys), 500)]
        return [row for chunk in chunks for row in original(self, account_id, chunk, timeout)]

    patch.setattr(SQLiteDatabase, "get", get)
