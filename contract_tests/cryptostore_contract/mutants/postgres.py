"""Mutants of the PostgreSQL backend: what only a server, a pool and several connections can get wrong."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from cryptostore import BackendUnavailable, Batch, FieldType, Record, fields_of, key_fields_of
from cryptostore_postgres.connections import Connection, Connections
from cryptostore_postgres.errors import translated
from cryptostore_postgres.migrations import SHIPPED
from cryptostore_postgres.statements import Statements
from cryptostore_postgres.store import PostgresStore

from .registry import mutant

_log = logging.getLogger(__name__)


def _in_tables(patch: pytest.MonkeyPatch, *replacements: tuple[str, str]) -> None:
    """Let the tables and the function be made by another SQL."""
    changed = []
    for migration in SHIPPED._all:
        text = migration.text
        for old, new in replacements:
            text = text.replace(old, new)
        changed.append(migration._replace(text=text))
    patch.setattr(SHIPPED, "_all", changed)


def _in_statements(patch: pytest.MonkeyPatch, builder: str) -> None:
    """Let one kind of statement find every account's rows."""
    original: Callable[..., bytes] = getattr(Statements, builder)

    def build(*arguments: Any, **named: Any) -> bytes:
        condition = b"stored.account_id = %b::bigint"
        return original(*arguments, **named).replace(condition, b"(" + condition + b" OR true)")

    patch.setattr(Statements, builder, build)


@mutant("ISOLATION-1", backend="postgres")
def account_missing_from_look_ups_by_key(patch: pytest.MonkeyPatch) -> None:
    """SELECT … WHERE, without the account."""
    _in_statements(patch, "_get")


@mutant("ISOLATION-1", backend="postgres")
def account_missing_from_deletions_by_key(patch: pytest.MonkeyPatch) -> None:
    """DELETE … WHERE, without the account."""
    _in_statements(patch, "_delete")


@mutant("ISOLATION-1", backend="postgres")
def account_missing_from_pages(patch: pytest.MonkeyPatch) -> None:
    """The pages of a scan, without the account."""
    _in_statements(patch, "_page")


@mutant("READING-6", backend="postgres")
def keys_ordered_by_a_language(patch: pytest.MonkeyPatch) -> None:
    """The order of a dictionary, in which small and capital letters stand together."""
    original = Statements.select

    def select(self: Statements, kind: type[Record], lengths: Sequence[int]) -> bytes:
        rows, _, _ = original(self, kind, lengths).rpartition(b" ORDER BY ")
        # By an expression, since not every server has a collation that sorts as people do.
        keys = [f'lower("{name}")' if of is FieldType.IDENTIFIER else f'"{name}"' for name, of in key_fields_of(kind)]
        return b"SELECT * FROM (" + rows + b") AS found ORDER BY " + ", ".join(["position", *keys]).encode()

    patch.setattr(Statements, "select", select)


@mutant("CONCURRENCY-3", backend="postgres")
def epoch_checked_without_the_lock(patch: pytest.MonkeyPatch) -> None:
    """The row is read, and only then locked by the update, which asks for nothing but its id."""
    claim = "UPDATE {schema}.account SET sequence = batch_number\n    WHERE id = claimed_account AND epoch"
    look = "SELECT * INTO present FROM {schema}.account WHERE id = claimed_account AND epoch"
    late = (
        "IF FOUND THEN PERFORM pg_sleep(0.03); "
        "UPDATE {schema}.account SET sequence = batch_number WHERE id = claimed_account; "
    )
    _in_tables(patch, (claim, look), ("IF FOUND THEN", late))


@mutant("NUMBERING-2", "SEVERING-1", backend="postgres")
def number_not_checked(patch: pytest.MonkeyPatch) -> None:
    """The epoch is checked, and the sequence not: bytes that were late commit an old ratchet."""
    _in_tables(patch, ("AND epoch = claimed_epoch AND sequence = batch_number - 1;", "AND epoch = claimed_epoch;"))


@mutant("FAULTS-6", "SEVERING-3", backend="postgres")
def table_not_logged(patch: pytest.MonkeyPatch) -> None:
    """Acknowledged before it is durable: a table that is empty after a crash of the server."""
    _in_tables(patch, ("CREATE TABLE {schema}.olm_session", "CREATE UNLOGGED TABLE {schema}.olm_session"))


@mutant("BATCHES-9", backend="postgres")
def connection_kept_after_an_error(patch: pytest.MonkeyPatch) -> None:
    """A connection leaks from the pool wherever a statement fails."""

    def once(self: Connections, ends: float, work: Callable[[Connection], Any]) -> Any:
        with translated(self._options.place, self._password):
            connection = self._pool.getconn(timeout=max(0.0, ends - time.monotonic()))
            with self.guarded(connection, ends):
                result = work(connection)
            self._pool.putconn(connection)
            return result

    patch.setattr(Connections, "once", once)


@mutant("FAULTS-4", "FAULTS-8", "FAULTS-9", "FAULTS-12", "FAULTS-13", backend="postgres")
def absence_of_the_server_swallowed(patch: pytest.MonkeyPatch) -> None:
    """A swallowed error: what cannot reach the server counts as committed."""
    original = PostgresStore.commit

    def commit(self: PostgresStore, batch: Batch, timeout: float) -> None:
        with contextlib.suppress(BackendUnavailable):
            original(self, batch, timeout)

    patch.setattr(PostgresStore, "commit", commit)


@mutant("SECRETS-2", backend="postgres")
def failed_batch_logged(patch: pytest.MonkeyPatch) -> None:
    """The log shows what could not be committed."""
    original = PostgresStore.commit

    def commit(self: PostgresStore, batch: Batch, timeout: float) -> None:
        try:
            original(self, batch, timeout)
        except BackendUnavailable:
            puts = [one for kind in batch.changes.kinds() for one in batch.changes.puts(kind)]
            _log.debug("could not commit %s", [getattr(one, name) for one in puts for name, _ in fields_of(type(one))])
            raise

    patch.setattr(PostgresStore, "commit", commit)


@mutant("NUMBERING-5", "SEVERING-1", backend="postgres")
def batch_committed_at_every_attempt(patch: pytest.MonkeyPatch) -> None:
    """No sequence number: a batch whose answer was lost is committed again."""
    _in_tables(
        patch,
        ("SET sequence = batch_number\n", "SET sequence = sequence + 1\n"),
        ("AND epoch = claimed_epoch AND sequence = batch_number - 1;", "AND epoch = claimed_epoch;"),
    )
