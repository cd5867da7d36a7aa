"""Mutants of the SQLite backend on its disk: a full one, one that may not be written, what is erased, schemas, logs."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from cryptostore import (
    AccountRow,
    BackendPlugin,
    BackendUnavailable,
    Batch,
    Claim,
    ConfigurationError,
    Schema,
    StorageFull,
    Support,
    TakeOver,
)
from cryptostore_sqlite import connecting, database, opening
from cryptostore_sqlite.connections import Connections
from cryptostore_sqlite.database import SQLiteDatabase

from .registry import mutant

_log = logging.getLogger(__name__)


def _swallow(patch: pytest.MonkeyPatch, *errors: type[Exception]) -> None:
    """Say of batches that fail in these ways that they were committed."""
    original = SQLiteDatabase.commit

    def commit(self: SQLiteDatabase, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        try:
            return original(self, account_id, batch, timeout)
        except errors:
            [row] = [row for row in self.accounts(timeout) if row.id == account_id]
            return batch.row_after(row)

    patch.setattr(SQLiteDatabase, "commit", commit)


@mutant("STORAGE-1", "STORAGE-2", backend="sqlite")
def full_disk_swallowed(patch: pytest.MonkeyPatch) -> None:
    """A swallowed error: the batch counts as applied."""
    _swallow(patch, StorageFull)


@mutant("STORAGE-3", backend="sqlite")
def read_only_swallowed(patch: pytest.MonkeyPatch) -> None:
    """What cannot be written is left unwritten, without a word."""
    original = SQLiteDatabase.take_over

    def take_over(self: SQLiteDatabase, user_id: str, device_id: str, claim: TakeOver, timeout: float) -> AccountRow:
        try:
            return original(self, user_id, device_id, claim, timeout)
        except (ConfigurationError, BackendUnavailable):
            found = self.find(user_id, device_id, timeout)
            assert found is not None
            return found

    patch.setattr(SQLiteDatabase, "take_over", take_over)
    _swallow(patch, ConfigurationError, BackendUnavailable)


@mutant("STORAGE-4", backend="sqlite")
def read_only_database_said_to_be_writable(patch: pytest.MonkeyPatch) -> None:
    """Health is whether the file opens."""
    patch.setattr(Connections, "is_writable", lambda _self, _timeout: True)


@mutant("ISOLATION-4", backend="sqlite")
def deletion_forgets_the_rows(patch: pytest.MonkeyPatch) -> None:
    """The account goes, and its rows stay."""
    without = [statement for statement in database._DELETE_ACCOUNT if "record" not in statement]
    patch.setattr(database, "_DELETE_ACCOUNT", without)


@mutant("ISOLATION-4", "ISOLATION-5", backend="sqlite")
def deleted_rows_left_in_the_file(patch: pytest.MonkeyPatch) -> None:
    """Nothing is written over with zeros."""
    patch.setattr(connecting, "SETTINGS", connecting.SETTINGS.replace("secure_delete = ON", "secure_delete = OFF"))
    patch.setattr(Connections, "_checkpoint", lambda _self, _writer: None)


@mutant("SCHEMA-2", backend="sqlite")
def newer_schema_accepted(patch: pytest.MonkeyPatch) -> None:
    """Opening ignores `min_compatible`."""
    patch.setattr(Schema, "refuse_if_newer", lambda *_: None)


@mutant("SCHEMA-3", backend="sqlite")
def newer_schema_touched_before_it_is_refused(patch: pytest.MonkeyPatch) -> None:
    """The settings of a connection are written into the file before anybody looks at its version."""
    original = opening.inspect

    def inspect(path: Path, *arguments: Any) -> Schema | None:
        with contextlib.closing(sqlite3.connect(path)) as other:
            (version,) = other.execute("PRAGMA user_version").fetchone()
            other.execute(f"PRAGMA user_version = {version + 1}")
        return original(path, *arguments)

    patch.setattr(opening, "inspect", inspect)


@mutant("SECRETS-1", backend="sqlite")
def statements_logged(patch: pytest.MonkeyPatch) -> None:
    """A debug line shows every statement, with the values in it."""
    original = opening.open_writer

    def open_writer(*arguments: Any) -> sqlite3.Connection:
        writer = original(*arguments)
        writer.set_trace_callback(_log.debug)
        return writer

    patch.setattr(opening, "open_writer", open_writer)


@mutant("SECRETS-7", backend="sqlite")
def batch_told_that_found_no_room(patch: pytest.MonkeyPatch) -> None:
    """The error about a full disk shows what did not fit."""
    original = SQLiteDatabase.commit

    def commit(self: SQLiteDatabase, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        try:
            return original(self, account_id, batch, timeout)
        except StorageFull as error:
            raise StorageFull(f"{error}; not stored: {batch.puts}") from error

    patch.setattr(SQLiteDatabase, "commit", commit)


@mutant("CAPABILITIES-1", "CAPABILITIES-2", "CAPABILITIES-3", backend="sqlite")
def everything_denied(patch: pytest.MonkeyPatch) -> None:
    """A backend says of all that it can do that it cannot."""
    patch.setattr(
        BackendPlugin, "claim", lambda _self, _capability: Claim(Support.UNSUPPORTED, "to be on the safe side")
    )
