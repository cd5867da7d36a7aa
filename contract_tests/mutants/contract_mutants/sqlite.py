"""Mutants of the SQLite backend: its SQL and its transactions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from sqlite3 import Connection

import pytest

from cryptostore import AccountRow, Batch, InboundGroupSession, Range, Row, TakeOver
from cryptostore_sqlite import database
from cryptostore_sqlite.database import SQLiteDatabase
from cryptostore_sqlite.schema import SHIPPED

from .registry import mutant


def change_sql(patch: pytest.MonkeyPatch, name: str, old: str, new: str) -> None:
    """Let one of the statements in `database` be another."""
    statement: str = getattr(database, name)
    assert old in statement, f"{name} has changed"
    patch.setattr(database, name, statement.replace(old, new))


def _in_tables(patch: pytest.MonkeyPatch, old: str, new: str) -> None:
    """Let the tables be made by another SQL."""
    assert any(old in script for script in SHIPPED._scripts), "the tables have changed"
    patch.setattr(SHIPPED, "_scripts", [script.replace(old, new) for script in SHIPPED._scripts])


@mutant("ISOLATION-11", backend="sqlite")
def account_missing_from_look_ups(patch: pytest.MonkeyPatch) -> None:
    """SELECT … WHERE, without the account."""
    change_sql(patch, "_GET", "account_id = ?", "(account_id = ? OR TRUE)")


@mutant("ISOLATION-11", backend="sqlite")
def account_missing_from_ranges(patch: pytest.MonkeyPatch) -> None:
    """The same in ranges and pages."""
    change_sql(patch, "_RANGE", "account_id = ?", "(account_id = ? OR TRUE)")


@mutant("ISOLATION-1", backend="sqlite")
def account_missing_from_deletions(patch: pytest.MonkeyPatch) -> None:
    """DELETE … WHERE, without the account."""
    change_sql(patch, "_DELETE", "account_id = ?", "(account_id = ? OR TRUE)")


@mutant("ISOLATION-3", backend="sqlite")
def device_missing_from_the_deletion(patch: pytest.MonkeyPatch) -> None:
    """A neighbour is deleted: the same user's account on another device."""
    whole_user = "(SELECT id FROM account WHERE user_id = (SELECT user_id FROM account WHERE id = ?))"
    patch.setattr(
        database,
        "_DELETE_ACCOUNT",
        tuple(statement.replace("= ?", f"IN {whole_user}") for statement in database._DELETE_ACCOUNT),
    )


@mutant("ISOLATION-10", backend="sqlite")
def accounts_compared_without_case(patch: pytest.MonkeyPatch) -> None:
    """The table of accounts has a collation."""
    _in_tables(patch, "user_id   TEXT    NOT NULL", "user_id TEXT COLLATE NOCASE NOT NULL")


@mutant("READING-11", backend="sqlite")
def end_of_ranges_included(patch: pytest.MonkeyPatch) -> None:
    """BETWEEN takes both ends in."""
    change_sql(patch, "_RANGE", "key < ?", "key <= ?")


@mutant("READING-11", backend="sqlite")
def beginning_of_ranges_left_out(patch: pytest.MonkeyPatch) -> None:
    """> where >= is meant."""
    change_sql(patch, "_RANGE", "key >= ?", "key > ?")


@mutant("READING-11", backend="sqlite")
def ranges_without_an_end_empty(patch: pytest.MonkeyPatch) -> None:
    """No key is below NULL."""
    patch.setattr(database, "_BEYOND_ALL_KEYS", None)


@mutant("READING-5", backend="sqlite")
def rows_in_the_order_of_their_writing(patch: pytest.MonkeyPatch) -> None:
    """ORDER BY is not said, or is said of another column."""
    change_sql(patch, "_RANGE", "ORDER BY key", "ORDER BY rowid")


@mutant("RECORDS-8", "RECORDS-9", "UNREADABLE-4", backend="sqlite")
def first_value_kept(patch: pytest.MonkeyPatch) -> None:
    """ON CONFLICT DO NOTHING."""
    change_sql(patch, "_PUT", "DO UPDATE SET value = excluded.value", "DO NOTHING")


@mutant("OWNERSHIP-9", backend="sqlite")
def incarnation_kept_as_a_double(patch: pytest.MonkeyPatch) -> None:
    """A column of floating-point numbers: of 63 bits, 53 stay."""
    _in_tables(patch, "incarnation INTEGER NOT NULL", "incarnation REAL NOT NULL")


@mutant("CONCURRENCY-4", backend="sqlite")
def epoch_raised_by_two_transactions(patch: pytest.MonkeyPatch) -> None:
    """The epoch is read before the lock is taken: two that open at once raise it to the same."""
    original = SQLiteDatabase.take_over

    def take_over(self: SQLiteDatabase, user_id: str, device_id: str, claim: TakeOver, timeout: float) -> AccountRow:
        found = self.find(user_id, device_id, timeout)
        owned = original(self, user_id, device_id, claim, timeout)
        epoch = found.epoch + 1 if found else 1
        with self._connections.writing(timeout) as connection:
            connection.execute("UPDATE ownership SET epoch = ? WHERE account_id = ?", (epoch, owned.id))
        return owned._replace(epoch=epoch)

    patch.setattr(SQLiteDatabase, "take_over", take_over)


def commit_in_parts(patch: pytest.MonkeyPatch, parts: Callable[[Batch], Sequence[Batch]]) -> None:
    """Commit a batch in several transactions, of which the last has its number."""
    original = SQLiteDatabase.commit

    def commit(self: SQLiteDatabase, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        *first, last = parts(batch)
        for part in first:
            row = original(self, account_id, part, timeout)
            if row is None or (row.epoch, row.incarnation, row.sequence) != (*batch[:2], batch.number):
                return row
            with self._connections.writing(timeout) as connection:
                connection.execute(database._ADVANCE, (batch.number - 1, batch.written_at, account_id))
        return original(self, account_id, last, timeout)

    patch.setattr(SQLiteDatabase, "commit", commit)


def kind_by_kind(batch: Batch) -> Sequence[Batch]:
    """A part for each kind that a batch puts, one for its deletes, and one for its number."""
    by_kind = itertools.groupby(batch.puts, lambda row: row.key[0])
    puts = [batch._replace(puts=list(rows), deletes=[]) for _, rows in by_kind]
    return *puts, batch._replace(puts=[]), batch._replace(puts=[], deletes=[])


@mutant("STORAGE-1", "CONCURRENCY-10", backend="sqlite")
def large_batch_in_parts(patch: pytest.MonkeyPatch) -> None:
    """What is put is sent a megabyte at a time, and each is a transaction."""

    def parts(batch: Batch) -> list[Batch]:
        sizes = itertools.accumulate(len(row.value) for row in batch.puts)
        by_megabyte = itertools.groupby(zip(sizes, batch.puts, strict=True), lambda sized: sized[0] // 1_000_000)
        puts = [batch._replace(puts=[row for _, row in rows], deletes=[]) for _, rows in by_megabyte]
        return [*puts, batch._replace(puts=[])]

    commit_in_parts(patch, parts)


@mutant("CONCURRENCY-5", backend="sqlite")
def puts_in_two_transactions(patch: pytest.MonkeyPatch) -> None:
    """Between two halves of what a batch puts, others see the first."""

    def halves(batch: Batch) -> list[Batch]:
        middle = len(batch.puts) // 2
        return [batch._replace(puts=batch.puts[:middle]), batch._replace(puts=batch.puts[middle:], deletes=[])]

    commit_in_parts(patch, halves)


@mutant("CONCURRENCY-6", backend="sqlite")
def deletes_in_two_transactions(patch: pytest.MonkeyPatch) -> None:
    """Between two halves of what a batch deletes, others see the second."""

    def halves(batch: Batch) -> list[Batch]:
        middle = len(batch.deletes) // 2
        return [batch._replace(deletes=batch.deletes[:middle]), batch._replace(puts=[], deletes=batch.deletes[middle:])]

    commit_in_parts(patch, halves)


@mutant("CONCURRENCY-7", "CONCURRENCY-9", backend="sqlite")
def look_up_in_two_snapshots(patch: pytest.MonkeyPatch) -> None:
    """Many keys are two transactions, with a commit between them."""
    original = SQLiteDatabase.get

    def get(self: SQLiteDatabase, account_id: int, keys: Sequence[bytes], timeout: float) -> list[Row]:
        middle = len(keys) // 2
        return original(self, account_id, keys[:middle], timeout) + original(self, account_id, keys[middle:], timeout)

    patch.setattr(SQLiteDatabase, "get", get)


@mutant("CONCURRENCY-7", "CONCURRENCY-9", backend="sqlite")
def ranges_looked_up_one_by_one(patch: pytest.MonkeyPatch) -> None:
    """Each range is a transaction, with a snapshot of its own."""
    original = SQLiteDatabase.ranges

    def ranges(self: SQLiteDatabase, account_id: int, asked: Sequence[Range], timeout: float) -> list[Row]:
        return [row for each in asked for row in original(self, account_id, [each], timeout)]

    patch.setattr(SQLiteDatabase, "ranges", ranges)


@mutant("CONCURRENCY-8", backend="sqlite")
def deletion_page_by_page(patch: pytest.MonkeyPatch) -> None:
    """An account's rows are deleted page by page, each in a transaction of its own, and the account at the end."""
    original = SQLiteDatabase.delete

    def delete(self: SQLiteDatabase, account_id: int, timeout: float) -> None:
        begin = b""
        while rows := self.page(account_id, Range(begin, None), 50, timeout):
            with self._connections.writing(timeout) as connection:
                connection.executemany(database._DELETE, [(account_id, row.key) for row in rows])
            begin = rows[-1].key + b"\x00"
        with pytest.MonkeyPatch.context() as inner:
            rest = [statement for statement in database._DELETE_ACCOUNT if "record" not in statement]
            inner.setattr(database, "_DELETE_ACCOUNT", rest)
            original(self, account_id, timeout)

    patch.setattr(SQLiteDatabase, "delete", delete)


@mutant("SCHEMA-6", "SCHEMA-7", "SCHEMA-8", backend="sqlite")
def room_keys_in_another_form(patch: pytest.MonkeyPatch) -> None:
    """Room keys are stored in a new form, and read in no other; the schema's version is the old one."""

    def reformed(rows: Iterable[Row]) -> list[Row]:
        other = InboundGroupSession.kind_number
        return [Row(key, value[::-1] if key[0] == other else value) for key, value in rows]

    def reading(method: str) -> None:
        original: Callable[..., list[Row]] = getattr(SQLiteDatabase, method)
        patch.setattr(SQLiteDatabase, method, lambda *arguments: reformed(original(*arguments)))

    def commit(self: SQLiteDatabase, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        return sound(self, account_id, batch._replace(puts=reformed(batch.puts)), timeout)

    sound = SQLiteDatabase.commit
    patch.setattr(SQLiteDatabase, "commit", commit)
    for method in ("get", "ranges", "page"):
        reading(method)


@mutant("SCANNING-6", backend="sqlite")
def scan_holds_its_snapshot(patch: pytest.MonkeyPatch) -> None:
    """A scan is one long transaction."""
    original, close = SQLiteDatabase.page, SQLiteDatabase.close

    def page(self: SQLiteDatabase, account_id: int, within: Range, size: int, timeout: float) -> list[Row]:
        # A transaction of its own for each scan: several go on at once.
        scans: dict[bytes | None, _Held] = self.__dict__.setdefault("scans", {})
        if within.end not in scans:
            scans[within.end] = _Held(self._connections.reading(timeout))
        other = SQLiteDatabase(scans[within.end])  # type: ignore[arg-type]  # as far as it is used
        rows = original(other, account_id, within, size, timeout)
        if len(rows) < size:
            scans.pop(within.end).leave()
        return rows

    def close_scans(self: SQLiteDatabase) -> None:
        for scan in self.__dict__.get("scans", {}).values():
            scan.leave()
        close(self)

    patch.setattr(SQLiteDatabase, "page", page)
    patch.setattr(SQLiteDatabase, "close", close_scans)


class _Held:
    """One transaction, given out to every reader."""

    def __init__(self, transaction: AbstractContextManager[Connection]) -> None:
        self._context = ExitStack()
        self._connection = self._context.enter_context(transaction)

    def reading(self, _timeout: float) -> AbstractContextManager[Connection]:
        return nullcontext(self._connection)

    def leave(self) -> None:
        self._context.close()
