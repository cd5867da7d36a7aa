"""How a mutant changes what passes between the core and the in-memory model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from cryptostore import AccountRow, Batch, Range, Row, TakeOver
from cryptostore.store.memory import MemoryDatabase, MemoryHandle, MemoryRecords

Rows = Sequence[Row]


def account_of(shared: MemoryDatabase, account_id: int) -> AccountRow | None:
    """The row of the account with this id."""
    return next((row for row in shared.accounts.values() if row.id == account_id), None)


def keep(shared: MemoryDatabase, row: AccountRow) -> AccountRow:
    """Store an account's row as it is given."""
    shared.accounts[row.user_id, row.device_id] = row
    shared.records.setdefault(row.id, MemoryRecords())
    return row


def change_batches(patch: pytest.MonkeyPatch, changed: Callable[[Batch], Batch]) -> None:
    """Let another batch be committed than the one that is given."""
    original = MemoryHandle.commit

    def commit(handle: MemoryHandle, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        return original(handle, account_id, changed(batch), timeout)

    patch.setattr(MemoryHandle, "commit", commit)


def change_values(patch: pytest.MonkeyPatch, changed: Callable[[bytes], bytes]) -> None:
    """Let other values be stored than those that are put."""
    change_batches(patch, lambda batch: batch._replace(puts=[Row(key, changed(value)) for key, value in batch.puts]))


def commit_where(patch: pytest.MonkeyPatch, allowed: Callable[[AccountRow, Batch], bool]) -> None:
    """Let batches commit on another condition, too, than that they are the next of the present owner."""
    original = MemoryHandle.commit

    def commit(handle: MemoryHandle, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        found = account_of(handle.shared, account_id)
        if found is not None and allowed(found, batch):
            keep(handle.shared, found._replace(sequence=batch.number - 1))
            batch = batch._replace(epoch=found.epoch, incarnation=found.incarnation)
        return original(handle, account_id, batch, timeout)

    patch.setattr(MemoryHandle, "commit", commit)


def change_take_over(patch: pytest.MonkeyPatch, changed: Callable[[AccountRow | None, AccountRow], AccountRow]) -> None:
    """Let take-overs store and return another row than the sound one; `changed` gets it behind the row before it."""
    original = MemoryHandle.take_over

    def take_over(handle: MemoryHandle, user_id: str, device_id: str, claim: TakeOver, timeout: float) -> AccountRow:
        before = handle.shared.accounts.get((user_id, device_id))
        return keep(handle.shared, changed(before, original(handle, user_id, device_id, claim, timeout)))

    patch.setattr(MemoryHandle, "take_over", take_over)


def change_ranges(patch: pytest.MonkeyPatch, changed: Callable[[Rows, Sequence[Range]], Rows]) -> None:
    """Let `ranges` answer something else than what it finds."""
    original = MemoryHandle.ranges

    def ranges(handle: MemoryHandle, account_id: int, asked: Sequence[Range], timeout: float) -> Rows:
        return changed(original(handle, account_id, asked, timeout), asked)

    patch.setattr(MemoryHandle, "ranges", ranges)


def change_pages(
    patch: pytest.MonkeyPatch, changed: Callable[[Callable[[Range, int], Rows], Range, int], Rows]
) -> None:
    """Let `page` answer something else; `changed` gets the sound one to ask, the range and the size."""
    original = MemoryHandle.page

    def page(handle: MemoryHandle, account_id: int, within: Range, size: int, timeout: float) -> Rows:
        return changed(lambda asked, most: original(handle, account_id, asked, most, timeout), within, size)

    patch.setattr(MemoryHandle, "page", page)
