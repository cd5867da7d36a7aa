"""Mutants of the in-memory model that confuse accounts, leave something of them, or lie about the database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cryptostore import AccountRow, BackendUnavailable, Batch, Health, OlmMessage, Schema, TakeOver
from cryptostore.store.memory import MemoryDatabase, MemoryHandle, MemoryRecords

from .passing import keep
from .registry import mutant


@mutant("ISOLATION-11", "RECORDS-11")
def account_missing_from_a_where(patch: pytest.MonkeyPatch) -> None:
    """Rows are shared by all accounts."""
    patch.setattr(MemoryHandle, "_records", lambda _handle, shared, _id: shared.records.setdefault(0, MemoryRecords()))


def _names_alike(patch: pytest.MonkeyPatch, alike: Callable[[str], str]) -> None:
    """Let some accounts be taken for others."""
    for method in ("take_over", "find"):
        original: Callable[..., Any] = getattr(MemoryHandle, method)

        def named(handle: MemoryHandle, user_id: str, device_id: str, *rest: Any, sound: Any = original) -> Any:
            given = alike(user_id), alike(device_id)
            stored = next((name for name in handle.shared.accounts if (alike(name[0]), alike(name[1])) == given), None)
            return sound(handle, *(stored or (user_id, device_id)), *rest)

        patch.setattr(MemoryHandle, method, named)


@mutant("ISOLATION-10")
def case_of_names_folded(patch: pytest.MonkeyPatch) -> None:
    """The table of accounts has a collation."""
    _names_alike(patch, str.casefold)


@mutant("ISOLATION-10")
def long_names_cut_off(patch: pytest.MonkeyPatch) -> None:
    """A column of 250 bytes."""
    _names_alike(patch, lambda name: name.encode()[:250].decode(errors="ignore"))


@mutant("ISOLATION-3")
def neighbour_deleted(patch: pytest.MonkeyPatch) -> None:
    """Deleting a device deletes its user's other devices."""
    original = MemoryHandle.delete

    def delete(handle: MemoryHandle, account_id: int, timeout: float) -> None:
        users = {row.user_id for row in handle.shared.accounts.values() if row.id == account_id}
        for row in [row for row in handle.shared.accounts.values() if row.user_id in users]:
            original(handle, row.id, timeout)

    patch.setattr(MemoryHandle, "delete", delete)


@mutant("ISOLATION-3", "ISOLATION-11")
def deletion_forgets_the_rows(patch: pytest.MonkeyPatch) -> None:
    """The account goes, and its rows stay."""
    original = MemoryHandle.delete

    def delete(handle: MemoryHandle, account_id: int, timeout: float) -> None:
        left = handle.shared.records.get(account_id, MemoryRecords())
        original(handle, account_id, timeout)
        handle.shared.records[account_id] = left

    patch.setattr(MemoryHandle, "delete", delete)


@mutant("ISOLATION-3")
def deletion_forgets_the_account(patch: pytest.MonkeyPatch) -> None:
    """The rows go, and the account stays."""
    original = MemoryHandle.delete

    def delete(handle: MemoryHandle, account_id: int, timeout: float) -> None:
        left = [row for row in handle.shared.accounts.values() if row.id == account_id]
        original(handle, account_id, timeout)
        for row in left:
            keep(handle.shared, row)

    patch.setattr(MemoryHandle, "delete", delete)


@mutant("ISOLATION-7")
def account_deleted_under_its_owner_lives_on(patch: pytest.MonkeyPatch) -> None:
    """A batch makes a deleted account again."""
    delete, commit = MemoryHandle.delete, MemoryHandle.commit
    gone: dict[int, AccountRow] = {}

    def delete_and_remember(handle: MemoryHandle, account_id: int, timeout: float) -> None:
        gone.update({row.id: row for row in handle.shared.accounts.values() if row.id == account_id})
        delete(handle, account_id, timeout)

    def commit_anyway(handle: MemoryHandle, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        row = gone.get(account_id)
        if row is not None and (row.user_id, row.device_id) not in handle.shared.accounts:
            keep(handle.shared, row)
        return commit(handle, account_id, batch, timeout)

    patch.setattr(MemoryHandle, "delete", delete_and_remember)
    patch.setattr(MemoryHandle, "commit", commit_anyway)


@mutant("BACKUPS-4", "ISOLATION-8")
def account_made_anew_taken_for_the_old(patch: pytest.MonkeyPatch) -> None:
    """An account that is made again gets the id, and the owner the incarnation, that the deleted one had."""
    delete, take_over = MemoryHandle.delete, MemoryHandle.take_over
    gone: dict[tuple[str, str], AccountRow] = {}

    def delete_and_remember(handle: MemoryHandle, account_id: int, timeout: float) -> None:
        gone.update({name: row for name, row in handle.shared.accounts.items() if row.id == account_id})
        delete(handle, account_id, timeout)

    def take_over_again(
        handle: MemoryHandle, user_id: str, device_id: str, claim: TakeOver, timeout: float
    ) -> AccountRow:
        old = gone.pop((user_id, device_id), None)
        if old is not None:
            claim = claim._replace(new_id=old.id, incarnation=old.incarnation)
        return take_over(handle, user_id, device_id, claim, timeout)

    patch.setattr(MemoryHandle, "delete", delete_and_remember)
    patch.setattr(MemoryHandle, "take_over", take_over_again)


@mutant("ISOLATION-6")
def reader_makes_an_account(patch: pytest.MonkeyPatch) -> None:
    """Looking for an account that is not there creates it."""
    original = MemoryHandle.find

    def find(handle: MemoryHandle, user_id: str, device_id: str, timeout: float) -> AccountRow | None:
        found = original(handle, user_id, device_id, timeout)
        return found or handle.take_over(user_id, device_id, TakeOver(1, 1, "", 0), timeout)

    patch.setattr(MemoryHandle, "find", find)


@mutant("ISOLATION-9")
def account_made_with_the_database(patch: pytest.MonkeyPatch) -> None:
    """A new database has an account already."""
    original = MemoryDatabase.__init__

    def init(shared: MemoryDatabase) -> None:
        original(shared)
        keep(shared, AccountRow(1, "@default:localhost", "DEFAULT", 1, 1, 0, "nobody", 0))

    patch.setattr(MemoryDatabase, "__init__", init)


@mutant("BATCHES-7")
def accounts_answered_from_a_cache(patch: pytest.MonkeyPatch) -> None:
    """A handle asks for the owners once, and keeps the answer."""
    original = MemoryHandle.accounts

    def accounts(handle: MemoryHandle, timeout: float) -> list[AccountRow]:
        answer: list[AccountRow] = handle.__dict__.setdefault("answer", original(handle, timeout))
        return answer

    patch.setattr(MemoryHandle, "accounts", accounts)


@mutant("ISOLATION-2")
def one_account_a_user(patch: pytest.MonkeyPatch) -> None:
    """GROUP BY user: of a user's devices, one is listed."""
    original = MemoryHandle.accounts

    def accounts(handle: MemoryHandle, timeout: float) -> list[AccountRow]:
        return list({row.user_id: row for row in original(handle, timeout)}.values())

    patch.setattr(MemoryHandle, "accounts", accounts)


@mutant("RESTART-1")
def kind_lost_on_close(patch: pytest.MonkeyPatch) -> None:
    """A temporary table goes with its connection."""

    def close(handle: MemoryHandle) -> None:
        for records in handle.shared.records.values():
            for key in [key for key in records.order if key[0] == OlmMessage.kind_number]:
                records.delete(key)

    patch.setattr(MemoryHandle, "close", close)


@mutant("LIFECYCLE-7")
def connection_kept_by_each_look(patch: pytest.MonkeyPatch) -> None:
    """Each look for an account takes a connection for good, and a pool has ten."""
    original = MemoryHandle.find

    def find(handle: MemoryHandle, user_id: str, device_id: str, timeout: float) -> AccountRow | None:
        handle.__dict__["connections"] = taken = handle.__dict__.get("connections", 0) + 1
        if taken > 10:
            raise BackendUnavailable("no connection is free", outcome_unknown=False)
        return original(handle, user_id, device_id, timeout)

    patch.setattr(MemoryHandle, "find", find)


@mutant("LIFECYCLE-6")
def server_not_named(patch: pytest.MonkeyPatch) -> None:
    """A backend says that it is well without a word on what it is."""
    patch.setattr(MemoryHandle, "health", lambda _handle, _timeout: Health("", writable=True))


@mutant("LIFECYCLE-6")
def unwritable_without_a_reason(patch: pytest.MonkeyPatch) -> None:
    """A database that accepts writes is said to accept none."""
    patch.setattr(MemoryHandle, "health", lambda _handle, _timeout: Health("memory", writable=False))


@mutant("LIFECYCLE-6")
def schema_made_up(patch: pytest.MonkeyPatch) -> None:
    """The oldest program that may use the tables is said to be newer than the tables."""
    patch.setattr(MemoryHandle, "schema", lambda _handle, _timeout: Schema(1, 2))


@mutant("SCHEMA-1", "SCHEMA-4")
def migrated_at_every_opening(patch: pytest.MonkeyPatch) -> None:
    """Opening does not check whether the tables are up to date."""
    original = MemoryHandle.__init__

    def init(handle: MemoryHandle, shared: MemoryDatabase) -> None:
        original(handle, shared)
        with shared.lock:
            shared.__dict__["version"] = shared.__dict__.get("version", 0) + 1
        handle.__dict__["version"] = shared.__dict__["version"]

    patch.setattr(MemoryHandle, "__init__", init)
    patch.setattr(MemoryHandle, "schema", lambda handle, _timeout: Schema(handle.__dict__["version"], 1))
