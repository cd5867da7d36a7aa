"""Mutants of the SQLite backend on its disk: a full one, rows that are damaged, what is erased, schemas, the log."""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from nio.crypto import InboundGroupSession, Olm

from cryptostore import (
    Account,
    BackendPlugin,
    BackendUnavailable,
    Batch,
    Changes,
    Claim,
    ConfigurationError,
    CryptoStore,
    Mode,
    OlmAccount,
    Record,
    Schema,
    StorageFull,
    Support,
    UnreadableRecord,
    Value,
)
from cryptostore.nio import NioStore
from cryptostore.nio.pickles import Pickles
from cryptostore.nio.sealing import Seal
from cryptostore.sequence import BatchSequence
from cryptostore_sqlite import accounts, connections
from cryptostore_sqlite.backend import SQLiteBackend
from cryptostore_sqlite.connections import Connections
from cryptostore_sqlite.schema import Migrations
from cryptostore_sqlite.store import SQLiteStore

from .registry import mutant
from .secrets import contents_of

Decode = Callable[[Any], Any]

_log = logging.getLogger(__name__)


@mutant("STORAGE-1", "STORAGE-2", backend="sqlite")
def full_disk_swallowed(patch: pytest.MonkeyPatch) -> None:
    """A swallowed error: the batch counts as applied."""
    original = SQLiteStore.commit

    def commit(self: SQLiteStore, batch: Batch, timeout: float) -> None:
        with contextlib.suppress(StorageFull):
            original(self, batch, timeout)

    patch.setattr(SQLiteStore, "commit", commit)


@mutant("STORAGE-2", backend="sqlite")
def refused_batch_kept_as_pending(patch: pytest.MonkeyPatch) -> None:
    """A batch that was rolled back for certain is sent again before the next."""
    original = BatchSequence._send

    def send(sequence: BatchSequence, batch: Batch, ends: float) -> None:
        try:
            original(sequence, batch, ends)
        except StorageFull:
            sequence._pending = batch
            raise

    patch.setattr(BatchSequence, "_send", send)


@mutant("STORAGE-3", backend="sqlite")
def read_only_swallowed(patch: pytest.MonkeyPatch) -> None:
    """What cannot be written is left unwritten, without a word."""
    open_store, commit = SQLiteBackend.open_store, SQLiteStore.commit

    def open_anyway(backend: SQLiteBackend, account: Account, mode: Mode = Mode.OWN) -> CryptoStore:
        try:
            return open_store(backend, account, mode)
        except (ConfigurationError, BackendUnavailable):
            with backend._connections.reading() as connection:
                account_id, ownership = accounts.find(connection, account)
            return SQLiteStore(backend._connections, account_id, account, mode, ownership, 1)

    def commit_or_not(self: SQLiteStore, batch: Batch, timeout: float) -> None:
        with contextlib.suppress(ConfigurationError, BackendUnavailable):
            commit(self, batch, timeout)

    patch.setattr(SQLiteBackend, "open_store", open_anyway)
    patch.setattr(SQLiteStore, "commit", commit_or_not)


@mutant("STORAGE-4", backend="sqlite")
def read_only_database_said_to_be_writable(patch: pytest.MonkeyPatch) -> None:
    """Health is whether the file opens."""
    patch.setattr(Connections, "is_writable", lambda _self: True)


def _read_rows(patch: pytest.MonkeyPatch, read: Callable[..., Iterator[Any]]) -> None:
    patch.setattr("cryptostore_sqlite.store.read_rows", read)


@mutant("UNREADABLE-1", "UNREADABLE-2", backend="sqlite")
def unreadable_row_skipped_without_a_word(patch: pytest.MonkeyPatch) -> None:
    """What cannot be read is not there; of an Olm account, a new one would take its place."""

    def read(_account: Account, _kind: type[Record], found: Iterable[Any], decode: Decode) -> Iterator[Any]:
        for row in found:
            with contextlib.suppress(ValueError, TypeError):
                yield decode(row)

    _read_rows(patch, read)


@mutant("UNREADABLE-6", backend="sqlite")
def unreadable_row_quoted(patch: pytest.MonkeyPatch) -> None:
    """The warning shows the row, to be helpful."""

    def read(_account: Account, kind: type[Record], found: Iterable[Any], decode: Decode) -> Iterator[Any]:
        for row in found:
            try:
                yield decode(row)
            except (ValueError, TypeError):
                _log.warning("unreadable %s: %r", kind.kind_name, row)

    _read_rows(patch, read)


@mutant("UNREADABLE-3", backend="sqlite")
def unreadable_row_cleaned_away(patch: pytest.MonkeyPatch) -> None:
    """Taking an account over deletes what cannot be read."""
    original = SQLiteBackend.open_store

    def open_store(backend: SQLiteBackend, account: Account, mode: Mode = Mode.OWN) -> CryptoStore:
        store = original(backend, account, mode)
        if mode is Mode.OWN:
            with backend._connections.writing(5) as connection:
                connection.execute("DELETE FROM inbound_group_session WHERE first_known_index < 0")
        return store

    patch.setattr(SQLiteBackend, "open_store", open_store)


@mutant("UNREADABLE-5", backend="sqlite")
def every_account_looked_at(patch: pytest.MonkeyPatch) -> None:
    """Opening one account reports the damage to another's."""
    original = SQLiteBackend.open_store

    def open_store(backend: SQLiteBackend, account: Account, mode: Mode = Mode.OWN) -> CryptoStore:
        for other in backend.accounts():
            with contextlib.suppress(UnreadableRecord):
                original(backend, other, Mode.READ).get(OlmAccount, [()])
        return original(backend, account, mode)

    patch.setattr(SQLiteBackend, "open_store", open_store)


@mutant("ISOLATION-4", backend="sqlite")
def deletion_forgets_the_records(patch: pytest.MonkeyPatch) -> None:
    """Foreign keys are off in SQLite unless they are asked for."""
    patch.setattr(connections, "_SETTINGS", connections._SETTINGS.replace("foreign_keys = ON", "foreign_keys = OFF"))


@mutant("ISOLATION-4", "ISOLATION-5", backend="sqlite")
def deleted_rows_left_in_the_file(patch: pytest.MonkeyPatch) -> None:
    """Nothing is written over with zeros."""
    patch.setattr(connections, "_SETTINGS", connections._SETTINGS.replace("secure_delete = ON", "secure_delete = OFF"))
    patch.setattr(Connections, "_erase", lambda _self, _writer: None)


@mutant("SCHEMA-2", backend="sqlite")
def newer_schema_accepted(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks at `min_compatible`."""

    def accept(_self: Migrations, found: Schema, _path: Path) -> Schema:
        return found

    patch.setattr(Migrations, "_refuse_too_new", accept)


@mutant("SCHEMA-3", backend="sqlite")
def newer_schema_touched_before_it_is_refused(patch: pytest.MonkeyPatch) -> None:
    """The settings of a connection are written into the file before anybody looks at its version."""
    original = connections._inspect

    def inspect(path: Path, *arguments: Any) -> Schema | None:
        with contextlib.closing(sqlite3.connect(path)) as other:
            (version,) = other.execute("PRAGMA user_version").fetchone()
            other.execute(f"PRAGMA user_version = {version + 1}")
        return original(path, *arguments)

    patch.setattr(connections, "_inspect", inspect)


@mutant("SECRETS-1", backend="sqlite")
def statements_logged(patch: pytest.MonkeyPatch) -> None:
    """A debug line shows every statement, with the values in it."""
    original = connections._open_writer

    def open_writer(*arguments: Any) -> sqlite3.Connection:
        writer = original(*arguments)
        writer.set_trace_callback(_log.debug)
        return writer

    patch.setattr(connections, "_open_writer", open_writer)


@mutant("SECRETS-7", backend="sqlite")
def batch_told_that_found_no_room(patch: pytest.MonkeyPatch) -> None:
    """The error about a full disk shows what did not fit."""
    original = SQLiteStore.commit

    def commit(store: SQLiteStore, batch: Batch, timeout: float) -> None:
        try:
            original(store, batch, timeout)
        except StorageFull as error:
            raise StorageFull(f"{error}; not stored: {contents_of(batch.changes)}") from error

    patch.setattr(SQLiteStore, "commit", commit)


@mutant("SECRETS-8", backend="sqlite")
def pickle_key_kept_beside_the_pickles(patch: pytest.MonkeyPatch) -> None:
    """What the pickle key locks away has the pickle key written on it."""
    seal, unseal = Seal.seal, Seal.open

    def written_on(lock: Seal, name: str, secret: str) -> bytes:
        return seal(lock, name, secret) + lock._pickle_key.encode()

    def unlocked(lock: Seal, name: str, sealed: bytes) -> str:
        return unseal(lock, name, sealed.removesuffix(lock._pickle_key.encode()))

    patch.setattr(Seal, "seal", written_on)
    patch.setattr(Seal, "open", unlocked)


@mutant("SECRETS-8", backend="sqlite")
def room_keys_kept_in_plain(patch: pytest.MonkeyPatch) -> None:
    """A room key is kept as it is exported, which needs no pickle key."""
    original = Pickles.group_session_record

    def record_of(pickles: Pickles, session: InboundGroupSession, received_at: datetime) -> Record:
        exported = session.export_session(session.first_known_index)
        return replace(original(pickles, session, received_at), pickle=exported.encode())

    patch.setattr(Pickles, "group_session_record", record_of)


@mutant("SECRETS-8", backend="sqlite")
def messages_kept_in_plain(patch: pytest.MonkeyPatch) -> None:
    """What is sent is kept until it is acknowledged, as it was before it was encrypted."""
    original = Olm.group_encrypt

    def group_encrypt(olm: Olm, room_id: str, message: dict[str, Any]) -> dict[str, str]:
        assert isinstance(olm.store, NioStore)
        olm.store._write(Changes([Value("unsent", room_id, json.dumps(message).encode())]))
        return original(olm, room_id, message)

    patch.setattr(Olm, "group_encrypt", group_encrypt)


@mutant("CAPABILITIES-1", "CAPABILITIES-2", "CAPABILITIES-3", backend="sqlite")
def everything_denied(patch: pytest.MonkeyPatch) -> None:
    """A backend says of all that it can do that it cannot."""
    patch.setattr(
        BackendPlugin, "claim", lambda _self, _capability: Claim(Support.UNSUPPORTED, "to be on the safe side")
    )
