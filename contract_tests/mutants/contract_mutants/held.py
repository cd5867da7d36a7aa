"""Mutants of the in-memory model that break where a call is held in its middle."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cryptostore import AccountRow, Batch, Row
from cryptostore.store.memory import MemoryHandle

from .passing import account_of, keep
from .registry import mutant


@mutant("OWNERSHIP-11")
def owner_checked_before_the_lock(patch: pytest.MonkeyPatch) -> None:
    """The account's row is read, and then written without another look."""

    def commit(handle: MemoryHandle, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        found = account_of(handle.shared, account_id)
        if found is None or found[3:6] != (batch.epoch, batch.incarnation, batch.number - 1):
            return found
        with handle._transaction(timeout) as shared:
            for row in batch.puts:
                shared.records[account_id].put(row)
            for key in batch.deletes:
                shared.records[account_id].delete(key)
            return keep(shared, batch.row_after(found))

    patch.setattr(MemoryHandle, "commit", commit)


@mutant("CONCURRENCY-9")
def look_up_in_chunks_of_500(patch: pytest.MonkeyPatch) -> None:
    """Many keys are asked for 500 at a time, each time with a snapshot of its own."""
    original = MemoryHandle.get

    def get(handle: MemoryHandle, account_id: int, keys: Sequence[bytes], timeout: float) -> list[Row]:
        chunks = [keys[at : at + 500] for at in range(0, len(keys), 500)]
        return [row for chunk in chunks for row in original(handle, account_id, chunk, timeout)]

    patch.setattr(MemoryHandle, "get", get)


@mutant("CONCURRENCY-10")
def rows_put_one_by_one(patch: pytest.MonkeyPatch) -> None:
    """Each row of a batch is put under the lock, which others may have between two of them."""
    original = MemoryHandle.commit

    def commit(handle: MemoryHandle, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        found = account_of(handle.shared, account_id)
        if found is None or found[3:6] != (batch.epoch, batch.incarnation, batch.number - 1):
            return found
        for row in batch.puts:
            with handle._transaction(timeout) as shared:
                shared.records[account_id].put(row)
        return original(handle, account_id, batch._replace(puts=[]), timeout)

    patch.setattr(MemoryHandle, "commit", commit)
