"""Mutants that break batches: half of one, one twice, one that is forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cryptostore import Batch, Changes, CryptoStore, FencedOut, FieldType, Record
from cryptostore.memory import Database, MemoryBackend, MemoryStore, Table
from cryptostore.sequence import BatchSequence

from .registry import mutant
from .values import put_spoilt, with_fields


@mutant("NUMBERING-1")
def no_sequence_number(patch: pytest.MonkeyPatch) -> None:
    """A batch that is sent twice commits twice."""
    original = MemoryStore._expects

    def expects(store: MemoryStore, batch: Batch) -> bool:
        original(store, batch._replace(number=store._row.ownership.sequence + 1))
        return True

    patch.setattr(MemoryStore, "_expects", expects)


@mutant("NUMBERING-5", "NUMBERING-7")
def attempts_counted(patch: pytest.MonkeyPatch) -> None:
    """Every attempt is a batch of its own, with a number that the database gives it."""

    def commit(store: MemoryStore, batch: Batch, _timeout: float) -> None:
        with store._database.lock:
            store._put_and_delete(batch.changes)
            now = store._row.ownership
            store._row.ownership = replace(now, sequence=now.sequence + 1)

    patch.setattr(MemoryStore, "commit", commit)


@mutant("NUMBERING-2")
def late_batch_accepted(patch: pytest.MonkeyPatch) -> None:
    """Old bytes that come out of the network commit over new ones."""
    original = MemoryStore._expects

    def expects(store: MemoryStore, batch: Batch) -> bool:
        return batch.number < store._row.ownership.sequence or original(store, batch)

    patch.setattr(MemoryStore, "_expects", expects)


@mutant("NUMBERING-3")
def gap_accepted(patch: pytest.MonkeyPatch) -> None:
    """A batch commits although the one before it never came."""
    original = MemoryStore._expects

    def expects(store: MemoryStore, batch: Batch) -> bool:
        return batch.number > store._row.ownership.sequence + 1 or original(store, batch)

    patch.setattr(MemoryStore, "_expects", expects)


@mutant("NUMBERING-4")
def sequence_begins_anew(patch: pytest.MonkeyPatch) -> None:
    """A new owner begins with batch 1."""
    original = Database.take_over

    def take_over(database: Database, *arguments: Any) -> Any:
        row = original(database, *arguments)
        row.ownership = replace(row.ownership, sequence=0)
        return row

    patch.setattr(Database, "take_over", take_over)


@mutant("NUMBERING-6")
def pending_batch_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Lost update: the next batch takes the number of one whose outcome is open."""
    original = BatchSequence.apply

    def apply(sequence: BatchSequence, changes: Changes) -> None:
        sequence._pending = None
        original(sequence, changes)

    patch.setattr(BatchSequence, "apply", apply)


@mutant("NUMBERING-7")
def pending_batch_sent_under_two_numbers(patch: pytest.MonkeyPatch) -> None:
    """A caller that applies its batch again has it applied twice."""
    original = BatchSequence._send

    def send(sequence: BatchSequence, batch: Batch, ends: float) -> None:
        pending = sequence._pending
        original(sequence, batch, ends)
        if pending is not None:
            original(sequence, Batch(batch.number + 1, batch.changes), ends)

    patch.setattr(BatchSequence, "_send", send)


@mutant("NUMBERING-8")
def outcome_said_to_be_known(patch: pytest.MonkeyPatch) -> None:
    """FencedOut after a lost answer looks as if nothing had been committed."""
    original = BatchSequence._send

    def send(sequence: BatchSequence, batch: Batch, ends: float) -> None:
        try:
            original(sequence, batch, ends)
        except FencedOut as error:
            error.outcome_unknown = False
            raise

    patch.setattr(BatchSequence, "_send", send)


@mutant("NUMBERING-9")
def interrupted_batch_forgotten(patch: pytest.MonkeyPatch) -> None:
    """An interrupt counts as a failure."""
    original = BatchSequence._send

    def send(sequence: BatchSequence, batch: Batch, ends: float) -> None:
        try:
            original(sequence, batch, ends)
        except KeyboardInterrupt:
            sequence._pending = None
            raise

    patch.setattr(BatchSequence, "_send", send)


@mutant("NUMBERING-10")
def closing_sends_what_is_pending(patch: pytest.MonkeyPatch) -> None:
    """A store that closes commits what its caller has given up."""
    original = CryptoStore.close

    def close(store: CryptoStore) -> None:
        if store._sequence._pending is not None:
            store.commit(store._sequence._pending, 5)
        original(store)

    patch.setattr(CryptoStore, "close", close)


@mutant("BATCHES-1", "MACHINE-1")
def deletes_ignored(patch: pytest.MonkeyPatch) -> None:
    """Nothing is ever deleted."""
    patch.setattr(Table, "delete", lambda _table, _key: None)


@mutant("BATCHES-2")
def later_operation_wins(patch: pytest.MonkeyPatch) -> None:
    """A batch takes two operations on one key, and depends on their order."""

    def add(changes: Changes, kind: type[Record], key: Any, record: Record | None) -> None:
        changes._operations.setdefault(kind, {})[key] = record

    patch.setattr(Changes, "_add", add)


@mutant("BATCHES-3")
def half_batch_after_a_failure(patch: pytest.MonkeyPatch) -> None:
    """What was put before a record that cannot be stored stays."""

    def refused(_table: Table, record: Record) -> Record:
        with_fields(record, FieldType.BYTES, bytes.upper)
        return record

    put_spoilt(patch, refused)


@mutant("BATCHES-4")
def empty_batch_counted(patch: pytest.MonkeyPatch) -> None:
    """Nothing is committed, and has a number."""
    patch.setattr(Changes, "__bool__", lambda _changes: True, raising=False)


@mutant("BATCHES-5")
def large_batch_in_parts(patch: pytest.MonkeyPatch) -> None:
    """More than 10,000 records are two batches."""
    original = CryptoStore.apply

    def apply(store: CryptoStore, changes: Changes) -> None:
        records = [record for kind in changes.kinds() for record in changes.puts(kind)]
        if len(records) > 10_000:
            original(store, Changes(records[:10_000]))
            changes = Changes(records[10_000:])
        original(store, changes)

    patch.setattr(CryptoStore, "apply", apply)


@mutant("BATCHES-6")
def deletion_of_nothing_drops_the_batch(patch: pytest.MonkeyPatch) -> None:
    """A deletion that changes no row is taken for a conflict, and the rest is not stored."""
    original = MemoryStore._put_and_delete

    def put_and_delete(store: MemoryStore, changes: Changes) -> None:
        deleted = [(kind, key) for kind in changes.kinds() for key in changes.deletes(kind)]
        if all(key in store._row.table(kind).records for kind, key in deleted):
            original(store, changes)

    patch.setattr(MemoryStore, "_put_and_delete", put_and_delete)


@mutant("BATCHES-7")
def accounts_answered_from_a_cache(patch: pytest.MonkeyPatch) -> None:
    """A backend asks once who owns what."""
    original = MemoryBackend.accounts

    def accounts(backend: MemoryBackend) -> Any:
        return backend.__dict__.setdefault("answer", original(backend))

    patch.setattr(MemoryBackend, "accounts", accounts)


@mutant("BATCHES-9")
def lock_kept_after_an_error(patch: pytest.MonkeyPatch) -> None:
    """A connection is given back where all went well, and leaks where it did not."""

    def refused(_table: Table, record: Record) -> Record:
        return with_fields(record, FieldType.BYTES, bytes.upper)

    original = MemoryStore.commit

    def commit(store: MemoryStore, batch: Batch, timeout: float) -> None:
        try:
            original(store, batch, timeout)
        except TypeError:
            store._database.lock.acquire()
            raise

    put_spoilt(patch, refused)
    patch.setattr(MemoryStore, "commit", commit)


def in_halves(patch: pytest.MonkeyPatch, halves: Callable[[Changes, type[Record]], list[Changes]]) -> None:
    """Give the lock back in the middle of what a batch does to each kind."""
    original = MemoryStore._put_and_delete

    def put_and_delete(store: MemoryStore, changes: Changes) -> None:
        for kind in changes.kinds():
            for half in halves(changes, kind):
                original(store, half)
                store._database.lock.release()
                time.sleep(0.001)
                store._database.lock.acquire()

    patch.setattr(MemoryStore, "_put_and_delete", put_and_delete)


@mutant("CONCURRENCY-5")
def reader_sees_half_a_batch(patch: pytest.MonkeyPatch) -> None:
    """The lock is given back in the middle of a batch's puts."""

    def halves(changes: Changes, kind: type[Record]) -> list[Changes]:
        puts = changes.puts(kind)
        middle = len(puts) // 2
        rest = [(kind, key) for key in changes.deletes(kind)]
        return [Changes(puts[:middle], rest), Changes(puts[middle:])]

    in_halves(patch, halves)


@mutant("CONCURRENCY-6")
def reader_sees_half_a_deletion(patch: pytest.MonkeyPatch) -> None:
    """The lock is given back in the middle of a batch's deletions."""

    def halves(changes: Changes, kind: type[Record]) -> list[Changes]:
        deletes = [(kind, key) for key in changes.deletes(kind)]
        middle = len(deletes) // 2
        return [Changes(changes.puts(kind), deletes[:middle]), Changes(deletes=deletes[middle:])]

    in_halves(patch, halves)
