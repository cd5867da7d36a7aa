"""Mutants of the SQLite backend: its SQL, its columns and its transactions."""

from __future__ import annotations

import copy
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import datetime
from sqlite3 import Connection
from typing import Any, TypeVar

import pytest

from cryptostore import Account, Batch, Changes, FieldType, Key, Ownership, Record, SyncToken
from cryptostore_sqlite import accounts, columns, statements
from cryptostore_sqlite.backend import SQLiteBackend
from cryptostore_sqlite.schema import SHIPPED
from cryptostore_sqlite.store import SQLiteStore

from .registry import mutant

R = TypeVar("R", bound=Record)


def _in_sql(patch: pytest.MonkeyPatch, builder: str, pattern: str, replacement: str) -> None:
    """Let one of the functions in `statements` write another SQL."""
    original: Callable[..., str] = getattr(statements, builder)
    patch.setattr(
        statements,
        builder,
        lambda *given, **named: re.sub(pattern, replacement, original(*given, **named), flags=re.DOTALL),
    )


def _in_tables(patch: pytest.MonkeyPatch, old: str, new: str) -> None:
    """Let the tables be made by another SQL."""
    patch.setattr(SHIPPED, "_scripts", [script.replace(old, new) for script in SHIPPED._scripts])


def _column(patch: pytest.MonkeyPatch, field_type: FieldType, from_column: Callable[[Any], Any]) -> None:
    """Let one type of column be read in another way."""
    changed: Mapping[FieldType, Callable[[Any], Any]] = {**columns._FROM_COLUMN, field_type: from_column}
    patch.setattr(columns, "_FROM_COLUMN", changed)


@mutant("ISOLATION-1", backend="sqlite")
def account_missing_from_look_ups(patch: pytest.MonkeyPatch) -> None:
    """SELECT … WHERE, without the account."""
    _in_sql(patch, "select", r"account_id = \?", "(account_id = ? OR TRUE)")


@mutant("ISOLATION-1", backend="sqlite")
def account_missing_from_scans(patch: pytest.MonkeyPatch) -> None:
    """The same in the pages of a scan."""
    _in_sql(patch, "page", r"account_id = \?", "(account_id = ? OR TRUE)")


@mutant("ISOLATION-1", backend="sqlite")
def account_missing_from_deletions(patch: pytest.MonkeyPatch) -> None:
    """DELETE … WHERE, without the account."""
    _in_sql(patch, "delete", r"account_id = \?", "(account_id = ? OR TRUE)")


@mutant("ISOLATION-3", backend="sqlite")
def device_missing_from_the_deletion(patch: pytest.MonkeyPatch) -> None:
    """A neighbour is deleted: the same user's account on another device."""
    patch.setattr(accounts, "_DELETE", "DELETE FROM account WHERE user_id = ? AND device_id IS NOT NULL OR FALSE = ?")


@mutant("ISOLATION-2", backend="sqlite")
def accounts_compared_without_case(patch: pytest.MonkeyPatch) -> None:
    """The table of accounts has a collation."""
    _in_tables(patch, "user_id   TEXT    NOT NULL", "user_id TEXT COLLATE NOCASE NOT NULL")


@mutant("READING-1", backend="sqlite")
def keys_compared_without_case(patch: pytest.MonkeyPatch) -> None:
    """A lossy collation: the second of two records that look alike replaces the first."""
    _in_tables(patch, "room_id           TEXT    NOT NULL", "room_id TEXT COLLATE NOCASE NOT NULL")


@mutant("READING-8", backend="sqlite")
def prefixes_compared_without_case(patch: pytest.MonkeyPatch) -> None:
    """The same in a join alone."""
    _in_sql(patch, "select", r"(json_extract\([^)]*\))", r"\1 COLLATE NOCASE")


@mutant("SCANNING-2", backend="sqlite")
def prefixes_compared_by_like(patch: pytest.MonkeyPatch) -> None:
    """A prefix scan leaks a neighbour: LIKE takes a text for a beginning, and has characters of its own."""
    _in_sql(patch, "page", r'("\w+") = \?', r"\1 LIKE ? || '%'")


@mutant("READING-6", backend="sqlite")
def records_ordered_without_case(patch: pytest.MonkeyPatch) -> None:
    """ORDER BY has a collation."""
    _in_sql(patch, "select", r"ORDER BY (.*)$", r"ORDER BY \1 COLLATE NOCASE")


@mutant("SCANNING-1", backend="sqlite")
def page_repeats_a_row(patch: pytest.MonkeyPatch) -> None:
    """>= where > is meant."""
    _in_sql(patch, "page", r"\) > \(", ") >= (")


@mutant("RECORDS-8", "RECORDS-9", "UNREADABLE-4", backend="sqlite")
def record_kept_as_it_was(patch: pytest.MonkeyPatch) -> None:
    """ON CONFLICT DO NOTHING."""
    _in_sql(patch, "put", r"DO UPDATE SET .*", "DO NOTHING")


@mutant("RECORDS-8", backend="sqlite")
def field_missing_from_the_update(patch: pytest.MonkeyPatch) -> None:
    """A column was added to the insert, and not to the update."""
    _in_sql(patch, "put", r', "\w+" = excluded."\w+"\s*$', "")


@mutant("RECORDS-1", "SCHEMA-6", "SCHEMA-7", "SCHEMA-8", backend="sqlite")
def naive_time_read(patch: pytest.MonkeyPatch) -> None:
    """A time comes back without its zone, and no record can be made of it."""

    def naive(value: int) -> datetime:
        return columns.from_time_column(value).replace(tzinfo=None)

    _column(patch, FieldType.TIME, naive)


@mutant("RECORDS-2", backend="sqlite")
def large_integers_read_as_floats(patch: pytest.MonkeyPatch) -> None:
    """A driver has only doubles: 2**53 + 1 comes back as 2**53."""
    _column(patch, FieldType.COUNT, lambda value: int(float(value)) if value < 2**62 else value)


@mutant("CONCURRENCY-3", backend="sqlite")
def epoch_checked_outside_the_transaction_of_the_batch(patch: pytest.MonkeyPatch) -> None:
    """The check reads without the lock; the batch then commits, whoever owns the account by now."""

    def commit(self: SQLiteStore, batch: Batch, timeout: float) -> None:
        with self._connections.reading() as connection:
            expected = self._expects(connection, batch)
        # Long enough for another owner, whoever runs first.
        time.sleep(0.03)
        with self._connections.writing(timeout) as connection:
            if expected:
                self._put_and_delete(connection, batch.changes)
                accounts.advance(connection, self._id, batch.number)

    patch.setattr(SQLiteStore, "commit", commit)


@mutant("CONCURRENCY-4", backend="sqlite")
def epoch_raised_by_two_statements(patch: pytest.MonkeyPatch) -> None:
    """The epoch is read before the lock is taken: two that open at once raise it to the same."""
    original, take_over = SQLiteBackend.open_store, accounts.take_over
    read = threading.local()

    def open_store(backend: SQLiteBackend, account: Account, *mode: Any) -> Any:
        with backend._connections.reading() as connection:
            found = connection.execute(accounts._FIND, (account.user_id, account.device_id)).fetchone()
        read.epoch = found[1] + 1 if found else 1
        # Long enough for all that open at once.
        time.sleep(0.05)
        return original(backend, account, *mode)

    def take_over_as_read(connection: Connection, account: Account, owner: str) -> tuple[int, Ownership]:
        account_id, ownership = take_over(connection, account, owner)
        connection.execute("UPDATE account SET epoch = ? WHERE id = ?", (read.epoch, account_id))
        return account_id, replace(ownership, epoch=read.epoch)

    patch.setattr(SQLiteBackend, "open_store", open_store)
    patch.setattr(accounts, "take_over", take_over_as_read)


@mutant("BATCHES-3", "STORAGE-1", backend="sqlite")
def kinds_committed_one_by_one(patch: pytest.MonkeyPatch) -> None:
    """Half a batch: a transaction for each kind."""
    kind_by_kind(patch)


def kind_by_kind(patch: pytest.MonkeyPatch) -> None:
    """Commit after each kind of a batch."""
    original = SQLiteStore._put_and_delete

    def put_and_delete(self: SQLiteStore, connection: Any, changes: Changes) -> None:
        for kind in changes.kinds():
            deletes = [(kind, key) for key in changes.deletes(kind)]
            original(self, connection, Changes(changes.puts(kind), deletes))
            connection.execute("COMMIT")
            connection.execute("BEGIN IMMEDIATE")

    patch.setattr(SQLiteStore, "_put_and_delete", put_and_delete)


@mutant("BATCHES-1", backend="sqlite")
def token_outside_the_batch(patch: pytest.MonkeyPatch) -> None:
    """The sync token is kept for the next batch, so as to be written after what it acknowledges."""
    original = SQLiteStore.commit

    def commit(self: SQLiteStore, batch: Batch, timeout: float) -> None:
        changes = batch.changes
        puts = [one for kind in changes.kinds() if kind is not SyncToken for one in changes.puts(kind)]
        deletes = [(kind, key) for kind in changes.kinds() if kind is not SyncToken for key in changes.deletes(kind)]
        late = self.__dict__.get("token", Changes())
        self.__dict__["token"] = Changes(
            changes.puts(SyncToken), [(SyncToken, key) for key in changes.deletes(SyncToken)]
        )
        original(self, Batch(batch.number, late.followed_by(Changes(puts, deletes))), timeout)

    patch.setattr(SQLiteStore, "commit", commit)


@mutant("CONCURRENCY-5", backend="sqlite")
def look_up_in_two_snapshots(patch: pytest.MonkeyPatch) -> None:
    """Many keys are two statements, with a commit between them."""
    original = SQLiteStore.get

    def get(self: SQLiteStore, kind: type[R], keys: Iterable[Key]) -> dict[Key, R]:
        asked = list(keys)
        middle = len(asked) // 2
        found = original(self, kind, asked[:middle])
        time.sleep(0.002)
        return found | original(self, kind, asked[middle:])

    patch.setattr(SQLiteStore, "get", get)


@mutant("SCANNING-6", backend="sqlite")
def scan_holds_its_snapshot(patch: pytest.MonkeyPatch) -> None:
    """A scan is one long transaction."""
    original = SQLiteStore._scan

    def scan(self: SQLiteStore, kind: type[R], prefix: Key) -> Iterator[R]:
        with self._connections.reading() as connection:
            connection.execute("SELECT count(*) FROM account").fetchone()
            # A store of its own for each scan: several go on at once.
            store = copy.copy(self)
            store.__dict__["_connections"] = _Held(connection)
            yield from original(store, kind, prefix)

    patch.setattr(SQLiteStore, "_scan", scan)


class _Held:
    """One connection, given out to every reader."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def reading(self) -> AbstractContextManager[Connection]:
        return nullcontext(self._connection)
