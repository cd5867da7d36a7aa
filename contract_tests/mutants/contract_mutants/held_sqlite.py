"""Mutants of the SQLite backend that break where a call is held or interrupted in its middle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from sqlite3 import Connection

import pytest

from cryptostore import AccountRow, Batch, Row
from cryptostore_sqlite import database
from cryptostore_sqlite.connecting import connect, roll_back
from cryptostore_sqlite.connections import Connections
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
            connection.execute(database._ADVANCE, (batch.number, batch.written_at, account_id))
        return batch.row_after(row)

    patch.setattr(SQLiteDatabase, "commit", commit)


@mutant("CONCURRENCY-9", backend="sqlite")
def look_up_in_chunks_of_500(patch: pytest.MonkeyPatch) -> None:
    """Many keys are asked for 500 at a time, each time with a snapshot of its own."""
    original = SQLiteDatabase.get

    def get(self: SQLiteDatabase, account_id: int, keys: Sequence[bytes], timeout: float) -> list[Row]:
        chunks = [keys[at : at + 500] for at in range(0, len(keys), 500)]
        return [row for chunk in chunks for row in original(self, account_id, chunk, timeout)]

    patch.setattr(SQLiteDatabase, "get", get)


@mutant("NUMBERING-11", backend="sqlite")
def interrupted_transaction_gone_on_with(patch: pytest.MonkeyPatch) -> None:
    """Only errors roll a transaction back, and Ctrl-C is none: the next one is made in what is left open."""

    @contextmanager
    def writing(self: Connections, timeout: float, **_options: bool) -> Iterator[Connection]:
        with self._the_writer(timeout) as writer:
            try:
                if not writer.in_transaction:
                    writer.execute("BEGIN IMMEDIATE")
                yield writer
                writer.execute("COMMIT")
            except Exception:
                roll_back(writer)
                raise

    patch.setattr(Connections, "writing", writing)


@mutant("LIFECYCLE-8", backend="sqlite")
def transaction_left_open_by_reads(patch: pytest.MonkeyPatch) -> None:
    """A read begins a transaction, which the next read on its connection ends."""

    @contextmanager
    def reading(self: Connections, timeout: float) -> Iterator[Connection]:
        reader = self._take_reader(timeout)
        if reader.in_transaction:
            reader.execute("COMMIT")
        reader.execute("BEGIN")
        yield reader
        self._idle_readers.append(reader)

    patch.setattr(Connections, "reading", reading)


@mutant("BATCHES-10", backend="sqlite")
def megabyte_by_megabyte(patch: pytest.MonkeyPatch) -> None:
    """What is put goes to the disk a megabyte at a time, each in a transaction of its own."""
    original = SQLiteDatabase.commit

    def commit(self: SQLiteDatabase, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        found = original(self, account_id, batch._replace(puts=[], deletes=[], number=0), timeout)
        if found is None or found[3:6] != (batch.epoch, batch.incarnation, batch.number - 1):
            return found
        rest = list(batch.puts)
        while len(rest) > 4:
            with self._connections.writing(timeout) as connection:
                connection.executemany(database._PUT, [(account_id, *row) for row in rest[:4]])
            del rest[:4]
        return original(self, account_id, batch._replace(puts=rest), timeout)

    patch.setattr(SQLiteDatabase, "commit", commit)


@mutant("BATCHES-11", backend="sqlite")
def file_left_open_by_each_failed_batch(patch: pytest.MonkeyPatch) -> None:
    """After an error a new connection is made, and the old one is closed when the database is."""
    original, close = SQLiteDatabase.commit, SQLiteDatabase.close

    def commit(self: SQLiteDatabase, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        try:
            return original(self, account_id, batch, timeout)
        except Exception:
            another = connect(self._connections._path, timeout)
            another.execute("SELECT count(*) FROM account").fetchone()
            self.__dict__.setdefault("failed", []).append(another)
            raise

    def close_all(self: SQLiteDatabase) -> None:
        for each in self.__dict__.get("failed", []):
            each.close()
        close(self)

    patch.setattr(SQLiteDatabase, "commit", commit)
    patch.setattr(SQLiteDatabase, "close", close_all)
