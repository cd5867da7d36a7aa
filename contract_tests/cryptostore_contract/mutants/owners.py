"""Mutants that let two owners write one account."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest

from cryptostore import Account, Batch, Changes, CryptoStore, FencedOut, Key, Mode, Ownership, Record
from cryptostore.memory import AccountRow, Database, MemoryBackend, MemoryStore

from .registry import mutant

R = TypeVar("R", bound=Record)


@mutant("OWNERSHIP-1")
def epoch_not_checked(patch: pytest.MonkeyPatch) -> None:
    """An owner who was taken over goes on writing."""
    original = MemoryStore._expects

    def expects(store: MemoryStore, batch: Batch) -> bool:
        store.ownership = replace(store.ownership, epoch=store._row.ownership.epoch)  # type: ignore[misc]  # the bug
        return original(store, batch)

    patch.setattr(MemoryStore, "_expects", expects)


@mutant("OWNERSHIP-8")
def epoch_checked_by_number_only(patch: pytest.MonkeyPatch) -> None:
    """The number is checked, and the epoch not: a fenced owner's next number passes."""

    def expects(store: MemoryStore, batch: Batch) -> bool:
        return batch.number == store._row.ownership.sequence + 1

    patch.setattr(MemoryStore, "_expects", expects)


@mutant("OWNERSHIP-2")
def owner_known_by_its_name(patch: pytest.MonkeyPatch) -> None:
    """Whoever has the owner's name is the owner: two stores of one program are."""
    original = MemoryStore._expects

    def expects(store: MemoryStore, batch: Batch) -> bool:
        now = store._row.ownership
        if now.owner == store.ownership.owner:
            return True
        return original(store, batch)

    patch.setattr(MemoryStore, "_expects", expects)


@mutant("OWNERSHIP-3")
def fenced_by_itself(patch: pytest.MonkeyPatch) -> None:
    """The error names the owner that was fenced, not the one that fenced it."""
    original = MemoryStore._expects

    def expects(store: MemoryStore, batch: Batch) -> bool:
        try:
            return original(store, batch)
        except FencedOut as error:
            own = store.ownership
            raise FencedOut(str(error), owner=own.owner, since=own.since) from error

    patch.setattr(MemoryStore, "_expects", expects)


@mutant("OWNERSHIP-3")
def naive_time(patch: pytest.MonkeyPatch) -> None:
    """A time without a zone."""
    original = Database.take_over

    def take_over(database: Database, account: Account, owner: str) -> AccountRow:
        row = original(database, account, owner)
        row.ownership = replace(row.ownership, since=datetime.now(UTC).replace(tzinfo=None))
        return row

    patch.setattr(Database, "take_over", take_over)


@mutant("OWNERSHIP-4")
def epoch_not_raised(patch: pytest.MonkeyPatch) -> None:
    """Two owners share an epoch."""
    original = Database.take_over

    def take_over(database: Database, account: Account, owner: str) -> AccountRow:
        row = original(database, account, owner)
        row.ownership = replace(row.ownership, epoch=1)
        return row

    patch.setattr(Database, "take_over", take_over)


@mutant("OWNERSHIP-5")
def one_epoch_for_all_accounts(patch: pytest.MonkeyPatch) -> None:
    """Taking one account over fences the owners of the others."""
    original = Database.take_over

    def take_over(database: Database, account: Account, owner: str) -> AccountRow:
        for row in database.rows.values():
            row.ownership = replace(row.ownership, epoch=row.ownership.epoch + 1)
        return original(database, account, owner)

    patch.setattr(Database, "take_over", take_over)


@mutant("OWNERSHIP-6")
def reader_takes_over(patch: pytest.MonkeyPatch) -> None:
    """Looking at an account fences its owner."""
    patch.setattr(Database, "find", lambda database, account: database.take_over(account, "reader"))


@mutant("OWNERSHIP-7")
def stale_cache_after_fencing(patch: pytest.MonkeyPatch) -> None:
    """A store that has written a record never looks for another's."""
    commit, get = MemoryStore.commit, MemoryStore.get

    def commit_and_keep(store: MemoryStore, batch: Batch, timeout: float) -> None:
        commit(store, batch, timeout)
        kept = store.__dict__.setdefault("kept", {})
        kept.update({(kind, one.key): one for kind in batch.changes.kinds() for one in batch.changes.puts(kind)})

    def get_kept(store: MemoryStore, kind: type[R], keys: Iterable[Key]) -> dict[Key, R]:
        kept = store.__dict__.get("kept", {})
        return {key: kept.get((kind, key), found) for key, found in get(store, kind, keys).items()}

    patch.setattr(MemoryStore, "commit", commit_and_keep)
    patch.setattr(MemoryStore, "get", get_kept)


@mutant("BATCHES-8")
def reader_writes(patch: pytest.MonkeyPatch) -> None:
    """A store that was opened for reading is the owner's."""
    original = MemoryStore.__init__

    def init(store: MemoryStore, database: Any, row: Any, account: Any, _mode: Mode, *rest: Any) -> None:
        original(store, database, row, account, Mode.OWN, *rest)

    patch.setattr(MemoryStore, "__init__", init)


@mutant("CONCURRENCY-3")
def epoch_checked_outside_the_transaction(patch: pytest.MonkeyPatch) -> None:
    """Somebody takes over between the check and the commit."""

    def commit(store: MemoryStore, batch: Batch, _timeout: float) -> None:
        store._is_open.check()
        with store._database.lock:
            expected = store._expects(batch)
        time.sleep(0.002)
        with store._database.lock:
            if expected:
                store._put_and_delete(batch.changes)
                store._row.ownership = replace(store._row.ownership, sequence=batch.number)

    patch.setattr(MemoryStore, "commit", commit)


@mutant("CONCURRENCY-4")
def epoch_raised_without_the_lock(patch: pytest.MonkeyPatch) -> None:
    """Two that open at once read the same epoch, and raise it to the same."""

    def take_over(database: Database, account: Account, owner: str) -> AccountRow:
        now = datetime.now(UTC)
        row = database.rows.setdefault(account, AccountRow(Ownership(0, 0, owner, now)))
        epoch = row.ownership.epoch
        database.lock.release()
        time.sleep(0.005)
        database.lock.acquire()
        row.ownership = replace(row.ownership, epoch=epoch + 1, owner=owner, since=now)
        return row

    patch.setattr(Database, "take_over", take_over)


@mutant("CONCURRENCY-2", "ISOLATION-1")
def last_opened_account_written(patch: pytest.MonkeyPatch) -> None:
    """A backend remembers one account, and all of its stores write there."""
    opened: dict[Database, AccountRow] = {}
    open_store, put_and_delete = MemoryBackend.open_store, MemoryStore._put_and_delete

    def open_and_remember(backend: MemoryBackend, account: Account, mode: Mode = Mode.OWN) -> CryptoStore:
        store = open_store(backend, account, mode)
        opened[backend._database] = backend._database.rows[account]
        return store

    def put_there(store: MemoryStore, changes: Changes) -> None:
        own, store._row = store._row, opened[store._database]
        put_and_delete(store, changes)
        store._row = own

    patch.setattr(MemoryBackend, "open_store", open_and_remember)
    patch.setattr(MemoryStore, "_put_and_delete", put_there)
