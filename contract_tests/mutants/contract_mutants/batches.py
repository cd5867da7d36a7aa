"""Mutants of the in-memory model that break batches: half of one, one twice, one that is not the next."""

from __future__ import annotations

from copy import deepcopy

import pytest

from cryptostore import AccountRow, Batch
from cryptostore.store.memory import MemoryDatabase, MemoryHandle, MemoryRecords

from .passing import account_of, change_batches, commit_where
from .registry import mutant


@mutant("NUMBERING-1", "NUMBERING-2", "NUMBERING-3")
def number_not_checked(patch: pytest.MonkeyPatch) -> None:
    """Epoch and incarnation are checked, and the number not: what is sent twice commits twice."""
    commit_where(patch, lambda found, batch: (found.epoch, found.incarnation) == (batch.epoch, batch.incarnation))


@mutant("NUMBERING-1")
def same_number_committed_again(patch: pytest.MonkeyPatch) -> None:
    """>= where > is meant: the last batch's number is good for one more."""
    commit_where(patch, lambda found, batch: _is_owners(found, batch) and batch.number == found.sequence)


@mutant("NUMBERING-2")
def late_batch_accepted(patch: pytest.MonkeyPatch) -> None:
    """Old bytes that come out of the network commit over new ones."""
    commit_where(patch, lambda found, batch: _is_owners(found, batch) and batch.number < found.sequence)


@mutant("NUMBERING-3")
def gap_accepted(patch: pytest.MonkeyPatch) -> None:
    """A batch commits although the one before it never came."""
    commit_where(patch, lambda found, batch: _is_owners(found, batch) and batch.number > found.sequence + 1)


def _is_owners(found: AccountRow, batch: Batch) -> bool:
    return (found.epoch, found.incarnation) == (batch.epoch, batch.incarnation)


@mutant("NUMBERING-1", "NUMBERING-2")
def attempts_counted(patch: pytest.MonkeyPatch) -> None:
    """The database counts the attempts that reach it."""
    original = MemoryHandle.commit

    def commit(handle: MemoryHandle, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        found = account_of(handle.shared, account_id)
        if found is not None and _is_owners(found, batch):
            batch = batch._replace(number=found.sequence + 1)
        return original(handle, account_id, batch, timeout)

    patch.setattr(MemoryHandle, "commit", commit)


@mutant("BATCHES-2", "NUMBERING-1")
def row_answered_as_it_was(patch: pytest.MonkeyPatch) -> None:
    """The account's row is read before the batch, and answered as if it were the row behind it."""
    original = MemoryHandle.commit

    def commit(handle: MemoryHandle, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        found = account_of(handle.shared, account_id)
        original(handle, account_id, batch, timeout)
        return found

    patch.setattr(MemoryHandle, "commit", commit)


@mutant("OWNERSHIP-1")
def every_batch_said_to_be_committed(patch: pytest.MonkeyPatch) -> None:
    """The row that is answered is made of the batch, not of what is stored."""
    original = MemoryHandle.commit

    def commit(handle: MemoryHandle, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        row = original(handle, account_id, batch, timeout)
        if row is None:
            return None
        return row._replace(epoch=batch.epoch, incarnation=batch.incarnation, sequence=batch.number)

    patch.setattr(MemoryHandle, "commit", commit)


@mutant("NUMBERING-2", "OWNERSHIP-8", "OWNERSHIP-10")
def refused_batch_answered_with_nothing(patch: pytest.MonkeyPatch) -> None:
    """No row was updated, so none is answered, as if the account were gone."""
    original = MemoryHandle.commit

    def commit(handle: MemoryHandle, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        before = account_of(handle.shared, account_id)
        row = original(handle, account_id, batch, timeout)
        return None if row == before else row

    patch.setattr(MemoryHandle, "commit", commit)


@mutant("BATCHES-1", "MACHINE-1")
def deletes_ignored(patch: pytest.MonkeyPatch) -> None:
    """Nothing is ever deleted."""
    change_batches(patch, lambda batch: batch._replace(deletes=[]))


@mutant("BATCHES-1")
def deletes_left_for_the_next_batch(patch: pytest.MonkeyPatch) -> None:
    """What is deleted is kept, so as to be deleted behind the puts of the batch that follows."""
    left: list[bytes] = []

    def later(batch: Batch) -> Batch:
        deletes, left[:] = list(left), batch.deletes
        return batch._replace(deletes=deletes)

    change_batches(patch, later)


@mutant("BATCHES-5")
def rows_beyond_a_limit_dropped(patch: pytest.MonkeyPatch) -> None:
    """A statement takes 32,767 parameters, and the rest of a batch is dropped."""
    change_batches(patch, lambda batch: batch._replace(puts=batch.puts[:32_767]))


@mutant("BACKUPS-5", "BATCHES-6")
def deletion_of_nothing_drops_the_batch(patch: pytest.MonkeyPatch) -> None:
    """A deletion that changes no row is taken for a conflict, and the rest is not stored."""
    original = MemoryHandle.commit

    def commit(handle: MemoryHandle, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        records = handle.shared.records.get(account_id, MemoryRecords())
        if not records.values.keys() >= set(batch.deletes):
            batch = batch._replace(puts=[], deletes=[])
        return original(handle, account_id, batch, timeout)

    patch.setattr(MemoryHandle, "commit", commit)


@mutant("BATCHES-3")
def half_batch_after_a_failure(patch: pytest.MonkeyPatch) -> None:
    """What was put before a row that is refused stays."""
    refuse_what_is_no_value(patch)


@mutant("BATCHES-9")
def lock_kept_after_an_error(patch: pytest.MonkeyPatch) -> None:
    """A connection is given back where all went well, and leaks where it did not."""
    original = MemoryHandle.commit

    def commit(handle: MemoryHandle, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        try:
            return original(handle, account_id, batch, timeout)
        except TypeError:
            handle.shared.lock.acquire()
            raise

    refuse_what_is_no_value(patch)
    patch.setattr(MemoryHandle, "commit", commit)


@mutant("BATCHES-9")
def failed_transaction_left_open(patch: pytest.MonkeyPatch) -> None:
    """A transaction that failed is not ended: what comes behind it is a part of it, and is never committed."""
    original = MemoryHandle.commit

    def commit(handle: MemoryHandle, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        unended: MemoryHandle = handle.__dict__.get("unended", handle)
        try:
            return original(unended, account_id, batch, timeout)
        except TypeError:
            inside = MemoryDatabase()
            inside.accounts, inside.records = dict(unended.shared.accounts), deepcopy(unended.shared.records)
            handle.__dict__["unended"] = MemoryHandle(inside)
            raise

    refuse_what_is_no_value(patch)
    patch.setattr(MemoryHandle, "commit", commit)


def refuse_what_is_no_value(patch: pytest.MonkeyPatch) -> None:
    """Let a put raise for a value that is not bytes, which the model stores as it is."""
    original = MemoryRecords.put
    patch.setattr(MemoryRecords, "put", lambda records, row: original(records, row._replace(value=bytes(row.value))))
