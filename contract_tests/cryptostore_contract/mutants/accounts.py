"""Mutants that confuse accounts, and handles that are open with those that are not."""

from __future__ import annotations

from typing import Any

import pytest

from cryptostore import (
    Account,
    Backend,
    BackendUnavailable,
    Batch,
    CryptoStore,
    Health,
    InboundGroupSession,
    Mode,
    OlmMessage,
    OlmSession,
    Schema,
)
from cryptostore.lifecycle import OpenFlag
from cryptostore.memory import AccountRow, Database, MemoryBackend, MemoryStore, Table

from .registry import mutant


@mutant("ISOLATION-1")
def account_missing_from_a_where(patch: pytest.MonkeyPatch) -> None:
    """Tables are shared by all accounts."""
    original = Database.take_over

    def take_over(database: Database, account: Account, owner: str) -> AccountRow:
        row = original(database, account, owner)
        row.tables = next(iter(database.rows.values())).tables
        return row

    patch.setattr(Database, "take_over", take_over)


@mutant("ISOLATION-3")
def neighbour_deleted(patch: pytest.MonkeyPatch) -> None:
    """Deleting a device deletes its user's other devices."""

    def delete_account(backend: MemoryBackend, account: Account) -> None:
        for other in [other for other in backend._database.rows if other.user_id == account.user_id]:
            del backend._database.rows[other]

    patch.setattr(MemoryBackend, "delete_account", delete_account)


@mutant("ISOLATION-3")
def deletion_forgets_a_kind(patch: pytest.MonkeyPatch) -> None:
    """An account that is made anew finds sessions of the old one."""
    left: dict[Account, Table] = {}
    delete, take_over = MemoryBackend.delete_account, Database.take_over

    def delete_account(backend: MemoryBackend, account: Account) -> None:
        left[account] = backend._database.find(account).table(InboundGroupSession)
        delete(backend, account)

    def take_over_again(database: Database, account: Account, owner: str) -> AccountRow:
        row = take_over(database, account, owner)
        row.tables.setdefault(InboundGroupSession, left.get(account, Table()))
        return row

    patch.setattr(MemoryBackend, "delete_account", delete_account)
    patch.setattr(Database, "take_over", take_over_again)


@mutant("ISOLATION-8")
def account_made_anew_taken_for_the_old(patch: pytest.MonkeyPatch) -> None:
    """An owner of a deleted account writes into its successor."""
    original = MemoryStore._expects

    def expects(store: MemoryStore, batch: Batch) -> bool:
        store._row = store._database.rows.get(store.account, store._row)
        return original(store, batch)

    patch.setattr(MemoryStore, "_expects", expects)


@mutant("ISOLATION-7")
def account_deleted_under_its_owner_lives_on(patch: pytest.MonkeyPatch) -> None:
    """A batch makes a deleted account anew."""
    original = MemoryStore._expects

    def expects(store: MemoryStore, batch: Batch) -> bool:
        store._database.rows.setdefault(store.account, store._row)
        return original(store, batch)

    patch.setattr(MemoryStore, "_expects", expects)


@mutant("ISOLATION-6")
def reader_makes_an_account(patch: pytest.MonkeyPatch) -> None:
    """Looking for an account that is not there creates it."""
    original = MemoryBackend.open_store

    def open_store(backend: MemoryBackend, account: Account, mode: Mode = Mode.OWN) -> CryptoStore:
        if account not in backend._database.rows:
            backend._database.take_over(account, "")
        return original(backend, account, mode)

    patch.setattr(MemoryBackend, "open_store", open_store)


@mutant("ISOLATION-9")
def account_made_with_the_database(patch: pytest.MonkeyPatch) -> None:
    """A new database has an account already."""
    original = Database.__init__

    def init(database: Database) -> None:
        original(database)
        database.take_over(Account("@default:localhost", "DEFAULT"), "nobody")

    patch.setattr(Database, "__init__", init)


@mutant("RESTART-1")
def kind_lost_on_close(patch: pytest.MonkeyPatch) -> None:
    """A temporary table goes with its connection."""
    original = MemoryBackend.close

    def close(backend: MemoryBackend) -> None:
        for row in backend._database.rows.values():
            row.tables.pop(OlmMessage, None)
        original(backend)

    patch.setattr(MemoryBackend, "close", close)


@mutant("NIO-2")
def ratchet_not_replaced(patch: pytest.MonkeyPatch) -> None:
    """An Olm session that is there already stays as it is: its ratchet goes back at every start."""
    original = Table.put

    def put(table: Table, record: Any) -> None:
        if not isinstance(record, OlmSession) or record.key not in table.records:
            original(table, record)

    patch.setattr(Table, "put", put)


@mutant("LIFECYCLE-1")
def closed_store_answers(patch: pytest.MonkeyPatch) -> None:
    """Closing closes nothing."""
    patch.setattr(OpenFlag, "check", lambda _flag: None)


@mutant("LIFECYCLE-2")
def closed_backend_answers(patch: pytest.MonkeyPatch) -> None:
    """Closing a backend closes nothing."""
    patch.setattr(MemoryBackend, "close", lambda _backend: None)


@mutant("LIFECYCLE-4")
def store_closes_its_backend(patch: pytest.MonkeyPatch) -> None:
    """The first store that closes takes the connections of all with it."""
    original = CryptoStore.close

    def close(store: CryptoStore) -> None:
        original(store)
        if store._is_open._within is not None:
            store._is_open._within.close()

    patch.setattr(CryptoStore, "close", close)


@mutant("LIFECYCLE-5")
def block_leaves_open(patch: pytest.MonkeyPatch) -> None:
    """The end of a with block closes nothing."""
    for owner in (CryptoStore, Backend):
        patch.setattr(owner, "__exit__", lambda *_arguments: None)


@mutant("LIFECYCLE-6")
def health_made_up(patch: pytest.MonkeyPatch) -> None:
    """A backend says that it is well without a word on what it is."""
    patch.setattr(MemoryBackend, "health", lambda _backend: Health("", writable=True))


@mutant("LIFECYCLE-7")
def store_holds_a_connection(patch: pytest.MonkeyPatch) -> None:
    """Every open store has a connection of its own, and a pool has ten."""
    original = MemoryBackend.open_store

    def open_store(backend: MemoryBackend, account: Account, mode: Mode = Mode.OWN) -> CryptoStore:
        connections = backend.__dict__.setdefault("connections", [])
        if len(connections) == 10:
            raise BackendUnavailable("no connection is free")
        connections.append(account)
        return original(backend, account, mode)

    patch.setattr(MemoryBackend, "open_store", open_store)


@mutant("SCHEMA-1", "SCHEMA-4")
def migrated_at_every_opening(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks whether the tables are up to date."""
    original = MemoryBackend.__init__

    def init(backend: MemoryBackend, database: Database, *arguments: Any) -> None:
        original(backend, database, *arguments)
        with database.lock:
            version = database.__dict__["version"] = database.__dict__.get("version", 0) + 1
        backend.__dict__["schema"] = lambda: Schema(version, 1)

    patch.setattr(MemoryBackend, "__init__", init)
