"""Mutants of the in-memory model that let two owners write one account, or know neither."""

from __future__ import annotations

from datetime import datetime

import pytest

from cryptostore import AccountRow, Batch, TakeOver
from cryptostore.store.memory import MemoryDatabase, MemoryHandle
from cryptostore.store.ring import RING_KEYS

from .passing import change_take_over, commit_where, keep
from .registry import mutant

_HOUR = 3_600_000_000


@mutant("OWNERSHIP-1", "OWNERSHIP-8", "OWNERSHIP-10")
def owner_not_checked(patch: pytest.MonkeyPatch) -> None:
    """The number is checked, and the owner is not: an older owner goes on writing."""
    commit_where(patch, lambda found, batch: batch.number == found.sequence + 1)


@mutant("BACKUPS-2", "OWNERSHIP-10")
def incarnation_not_checked(patch: pytest.MonkeyPatch) -> None:
    """Two owners with one epoch, between whom a backup was put back, are one."""
    commit_where(patch, lambda found, batch: (found.epoch, found.sequence) == (batch.epoch, batch.number - 1))


@mutant("OWNERSHIP-10")
def older_epoch_not_refused(patch: pytest.MonkeyPatch) -> None:
    """The incarnation is checked, and the epoch is not."""
    commit_where(
        patch, lambda found, batch: (found.incarnation, found.sequence) == (batch.incarnation, batch.number - 1)
    )


@mutant("OWNERSHIP-2")
def owner_known_by_its_name(patch: pytest.MonkeyPatch) -> None:
    """Owners are told apart by their names: two stores of one program are one owner."""

    def same(before: AccountRow | None, owned: AccountRow) -> AccountRow:
        return owned if before is None or before.owner != owned.owner else before

    change_take_over(patch, same)


@mutant("OWNERSHIP-3")
def first_owner_remembered(patch: pytest.MonkeyPatch) -> None:
    """The owner's name and its time are stored with the account, and never again."""
    change_take_over(
        patch,
        lambda before, owned: owned._replace(owner=before.owner, since=before.since) if before else owned,
    )


@mutant("OWNERSHIP-3")
def time_shifted(patch: pytest.MonkeyPatch) -> None:
    """A time in UTC is stored as if it were the local one of a place five hours off."""
    change_take_over(patch, lambda _before, owned: owned._replace(since=owned.since + 5 * _HOUR))


@mutant("OWNERSHIP-9")
def microseconds_lost(patch: pytest.MonkeyPatch) -> None:
    """Times are kept in seconds."""
    change_take_over(patch, lambda _before, owned: owned._replace(since=owned.since // 1_000_000 * 1_000_000))


@mutant("OWNERSHIP-9")
def last_write_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A take-over counts as no write, and makes the time of the last one that of none."""
    change_take_over(patch, lambda _before, owned: owned._replace(written_at=0))


@mutant("OWNERSHIP-9")
def long_owner_cut_off(patch: pytest.MonkeyPatch) -> None:
    """A column of 64 bytes for the owner's name."""
    change_take_over(
        patch, lambda _before, owned: owned._replace(owner=owned.owner.encode()[:64].decode(errors="ignore"))
    )


@mutant("OWNERSHIP-4")
def epoch_not_raised(patch: pytest.MonkeyPatch) -> None:
    """Two owners share an epoch."""
    change_take_over(patch, lambda _before, owned: owned._replace(epoch=1))


@mutant("OWNERSHIP-9")
def incarnation_kept(patch: pytest.MonkeyPatch) -> None:
    """A new owner goes on as the incarnation that the account was made with."""
    change_take_over(patch, lambda before, owned: owned._replace(incarnation=before.incarnation) if before else owned)


@mutant("OWNERSHIP-1", "OWNERSHIP-8")
def owner_checked_against_a_cache(patch: pytest.MonkeyPatch) -> None:
    """A handle remembers the account's row as it last saw it, and commits whatever follows on that."""
    take_over, commit = MemoryHandle.take_over, MemoryHandle.commit

    def take_over_and_keep(
        handle: MemoryHandle, user_id: str, device_id: str, claim: TakeOver, timeout: float
    ) -> AccountRow:
        owned = take_over(handle, user_id, device_id, claim, timeout)
        handle.__dict__.setdefault("seen", {})[owned.id] = owned
        return owned

    def commit_unseen(handle: MemoryHandle, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        seen = handle.__dict__.get("seen", {})
        if account_id in seen:
            keep(handle.shared, seen[account_id])
        row = commit(handle, account_id, batch, timeout)
        seen[account_id] = row
        return row

    patch.setattr(MemoryHandle, "take_over", take_over_and_keep)
    patch.setattr(MemoryHandle, "commit", commit_unseen)


@mutant("CONCURRENCY-2")
def second_account_of_a_handle_not_stored(patch: pytest.MonkeyPatch) -> None:
    """A handle stores the rows of the account that it saw first; of the others only the key rings."""
    original = MemoryHandle.commit

    def commit(handle: MemoryHandle, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        if handle.__dict__.setdefault("first", account_id) != account_id:
            batch = batch._replace(puts=[row for row in batch.puts if row.key in RING_KEYS])
        return original(handle, account_id, batch, timeout)

    patch.setattr(MemoryHandle, "commit", commit)


@mutant("NUMBERING-4")
def sequence_begins_anew(patch: pytest.MonkeyPatch) -> None:
    """A new owner begins with batch 1."""
    change_take_over(patch, lambda _before, owned: owned._replace(sequence=0))


@mutant("ISOLATION-10")
def id_counted(patch: pytest.MonkeyPatch) -> None:
    """The database gives its accounts ids of its own: 1, 2, 3, and after a backup was put back the same again."""
    ids: dict[MemoryDatabase, int] = {}
    original = MemoryHandle.take_over

    def take_over(handle: MemoryHandle, user_id: str, device_id: str, claim: TakeOver, timeout: float) -> AccountRow:
        if (user_id, device_id) not in handle.shared.accounts:
            ids[handle.shared] = ids.get(handle.shared, 0) + 1
            claim = claim._replace(new_id=ids[handle.shared])
        return original(handle, user_id, device_id, claim, timeout)

    patch.setattr(MemoryHandle, "take_over", take_over)


@mutant("ISOLATION-10")
def id_replaced(patch: pytest.MonkeyPatch) -> None:
    """INSERT OR REPLACE: an account that is taken over gets a new id, and leaves its rows to the old one."""
    original = MemoryHandle.take_over

    def take_over(handle: MemoryHandle, user_id: str, device_id: str, claim: TakeOver, timeout: float) -> AccountRow:
        owned = original(handle, user_id, device_id, claim, timeout)
        return keep(handle.shared, owned._replace(id=claim.new_id))

    patch.setattr(MemoryHandle, "take_over", take_over)


@mutant("OWNERSHIP-9")
def large_integers_kept_as_doubles(patch: pytest.MonkeyPatch) -> None:
    """A number of 63 bits loses its last ten."""
    change_take_over(patch, lambda _before, owned: owned._replace(incarnation=owned.incarnation >> 10 << 10))


@mutant("OWNERSHIP-5")
def one_epoch_for_all_accounts(patch: pytest.MonkeyPatch) -> None:
    """Taking one account over fences the owners of the others."""
    original = MemoryHandle.take_over

    def take_over(handle: MemoryHandle, user_id: str, device_id: str, claim: TakeOver, timeout: float) -> AccountRow:
        for row in list(handle.shared.accounts.values()):
            keep(handle.shared, row._replace(epoch=row.epoch + 1))
        return original(handle, user_id, device_id, claim, timeout)

    patch.setattr(MemoryHandle, "take_over", take_over)


@mutant("OWNERSHIP-6")
def reader_takes_over(patch: pytest.MonkeyPatch) -> None:
    """Looking for an account fences its owner."""
    original = MemoryHandle.find

    def find(handle: MemoryHandle, user_id: str, device_id: str, timeout: float) -> AccountRow | None:
        found = original(handle, user_id, device_id, timeout)
        return None if found is None else keep(handle.shared, found._replace(epoch=found.epoch + 1, owner="reader"))

    patch.setattr(MemoryHandle, "find", find)


@mutant("ISOLATION-11")
def last_opened_account_written(patch: pytest.MonkeyPatch) -> None:
    """A handle remembers one account, and all of its stores write there."""
    original = MemoryHandle.take_over

    def take_over(handle: MemoryHandle, user_id: str, device_id: str, claim: TakeOver, timeout: float) -> AccountRow:
        owned = original(handle, user_id, device_id, claim, timeout)
        handle.__dict__["last"] = owned.id
        return owned

    def commit(handle: MemoryHandle, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        last = handle.__dict__.get("last", account_id)
        if last == account_id:
            return sound(handle, account_id, batch, timeout)
        row = sound(handle, account_id, batch._replace(puts=[], deletes=[]), timeout)
        with handle._transaction(timeout) as shared:
            for put in batch.puts:
                shared.records[last].put(put)
        return row

    sound = MemoryHandle.commit
    patch.setattr(MemoryHandle, "take_over", take_over)
    patch.setattr(MemoryHandle, "commit", commit)


@mutant("OWNERSHIP-13")
def time_kept_as_a_local_one(patch: pytest.MonkeyPatch) -> None:
    """A time is stored as a clock on the wall shows it, and read as if that clock hung where it is read."""
    walls: dict[int, datetime] = {}
    take_over, find = MemoryHandle.take_over, MemoryHandle.find

    def take_over_here(
        handle: MemoryHandle, user_id: str, device_id: str, claim: TakeOver, timeout: float
    ) -> AccountRow:
        walls[claim.incarnation] = datetime.fromtimestamp(claim.since // 1_000_000)  # noqa: DTZ006  # that is the bug
        return take_over(handle, user_id, device_id, claim, timeout)

    def find_here(handle: MemoryHandle, user_id: str, device_id: str, timeout: float) -> AccountRow | None:
        row = find(handle, user_id, device_id, timeout)
        return None if row is None else row._replace(since=int(walls[row.incarnation].timestamp()) * 1_000_000)

    patch.setattr(MemoryHandle, "take_over", take_over_here)
    patch.setattr(MemoryHandle, "find", find_here)
