"""Mutants of the PostgreSQL backend: its SQL, and what only a server, a pool and several connections can get wrong."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest

from cryptostore import AccountRow, BackendUnavailable, Batch, OlmSession
from cryptostore_postgres import checks, connections, statements
from cryptostore_postgres.connecting import Connection
from cryptostore_postgres.connections import Connections
from cryptostore_postgres.database import PostgresDatabase
from cryptostore_postgres.migrations import SHIPPED

from .registry import mutant

_log = logging.getLogger(__name__)


def _in_tables(patch: pytest.MonkeyPatch, old: str, new: str) -> None:
    """Let the tables be made by another SQL."""
    assert any(old in migration.text for migration in SHIPPED._all), "the tables have changed"
    patch.setattr(SHIPPED, "_all", [each._replace(text=each.text.replace(old, new)) for each in SHIPPED._all])


def _change_sql(patch: pytest.MonkeyPatch, name: str, *changes: tuple[str, str]) -> None:
    """Let one of the statements be another."""
    text: str = getattr(statements, name)
    for old, new in changes:
        assert old in text, f"{name} has changed"
        text = text.replace(old, new)
    patch.setattr(statements, name, text)


def change_commit(patch: pytest.MonkeyPatch, changed: Callable[..., AccountRow | None]) -> None:
    """Let batches be committed in another way; `changed` gets the sound one before its arguments."""
    original = PostgresDatabase.commit
    patch.setattr(PostgresDatabase, "commit", lambda *arguments: changed(original, *arguments))


_OF_ACCOUNT = "stored.account_id {eq} $1::{int8}"
_OF_ANY = f"({_OF_ACCOUNT} OR true)"


@mutant("ISOLATION-11", backend="postgres")
def account_missing_from_look_ups_by_key(patch: pytest.MonkeyPatch) -> None:
    """SELECT … WHERE, without the account."""
    _change_sql(patch, "_GET", (_OF_ACCOUNT, _OF_ANY))


@mutant("ISOLATION-1", backend="postgres")
def account_missing_from_deletions_by_key(patch: pytest.MonkeyPatch) -> None:
    """DELETE … WHERE, without the account."""
    own = "stored.account_id {eq} ownership.account_id"
    _change_sql(patch, "_DELETE", (own, f"({own} OR true)"), (" LIMIT 1", ""))


@mutant("ISOLATION-11", backend="postgres")
def account_missing_from_pages(patch: pytest.MonkeyPatch) -> None:
    """The pages of a scan, without the account."""
    _change_sql(patch, "_PAGE", (_OF_ACCOUNT, _OF_ANY))


@mutant("READING-11", backend="postgres")
def end_of_ranges_included(patch: pytest.MonkeyPatch) -> None:
    """BETWEEN takes both ends in; only where several ranges are asked for, which is a statement of its own."""
    _change_sql(patch, "_RANGES", ("{lt} wanted.stop", "{le} wanted.stop"))


@mutant("READING-5", backend="postgres")
def keys_ordered_by_a_language(patch: pytest.MonkeyPatch) -> None:
    """The order of a dictionary, in which small and capital letters stand together."""
    # By an expression, since not every server has a collation that sorts as people do.
    letters = "ORDER BY pg_catalog.lower(pg_catalog.encode(stored.key, 'escape')), stored.key"
    _change_sql(patch, "_PAGE", ("ORDER BY stored.key", letters))


@mutant("OWNERSHIP-12", backend="postgres")
def owner_checked_without_the_lock(patch: pytest.MonkeyPatch) -> None:
    """The row is looked at as it was before the lock, and the update asks for nothing but the account's id."""
    update, _, asked = statements._CLAIM.partition(" AND epoch")
    asked, returning, row = f" AND epoch{asked}".partition(" RETURNING")
    assert asked.count(" AND ") == 3, "_CLAIM has changed"
    update = update.replace("sequence = $1::{int8}", "sequence = GREATEST(sequence, $1::{int8})")
    seen = " AND EXISTS (SELECT FROM {ownership} AS seen WHERE seen.account_id {eq} $2::{int8}"
    seen += asked.replace(" AND ", " AND seen.") + ")"
    patch.setattr(statements, "_CLAIM", update + seen + returning + row)


@mutant("NUMBERING-2", "NUMBERING-3", "SEVERING-1", backend="postgres")
def number_not_checked(patch: pytest.MonkeyPatch) -> None:
    """The owner is checked, and the number not: bytes that were late commit an old ratchet."""
    _change_sql(patch, "_CLAIM", ("AND sequence {eq} $5::{int8}", "AND $5::{int8} IS NOT NULL"))


@mutant("BACKUPS-2", "OWNERSHIP-10", backend="postgres")
def incarnation_not_checked(patch: pytest.MonkeyPatch) -> None:
    """Two owners with one epoch, between whom a backup was put back, are one."""
    _change_sql(patch, "_CLAIM", ("AND incarnation {eq} $4::{int8}", "AND $4::{int8} IS NOT NULL"))


@mutant("FAULTS-6", backend="postgres")
def part_of_the_table_not_logged(patch: pytest.MonkeyPatch) -> None:
    """The table is divided by the keys, and the part with the Olm sessions is empty after a crash of the server."""
    [first, *others] = SHIPPED._all
    settings = re.search(r"\) WITH \(\s+autovacuum[^)]*\);", first.text)
    assert settings is not None, "the tables have changed"
    begin, end = (rf"'\x{each:02x}'" for each in (OlmSession.kind_number, OlmSession.kind_number + 1))
    part = "CREATE {} TABLE {{schema}}.{} PARTITION OF {{schema}}.record FOR VALUES FROM ({}) TO ({});"
    divided = [
        ") PARTITION BY RANGE (key);",
        part.format("", "below", "MINVALUE", begin),
        part.format("UNLOGGED", "sessions", begin, end),
        part.format("", "above", end, "MAXVALUE"),
    ]
    changed = first._replace(text=first.text.replace(settings[0], "\n".join(divided)))
    patch.setattr(SHIPPED, "_all", [changed, *others])


@mutant("SEVERING-3", backend="postgres")
def table_not_logged(patch: pytest.MonkeyPatch) -> None:
    """Acknowledged before it is durable: a table that is empty after a crash of the server."""
    _in_tables(patch, "CREATE TABLE {schema}.record", "CREATE UNLOGGED TABLE {schema}.record")
    logged = checks._PARTS.text.replace(b"relpersistence OPERATOR(pg_catalog.=) 'u'", b"relpersistence IS NULL")
    assert logged != checks._PARTS.text, "the look at the tables has changed"
    patch.setattr(checks, "_PARTS", checks._PARTS._replace(text=logged))


@mutant("BATCHES-9", backend="postgres")
def connection_kept_after_an_error(patch: pytest.MonkeyPatch) -> None:
    """A connection leaks from the pool wherever a statement fails."""
    leave_clean, give_back, close = connections._leave_clean, Connections._give_back, Connections.close
    leaked: list[Connection] = []
    unended: list[connections._Call] = []

    def leave(connection: Connection, error: BaseException) -> None:
        leave_clean(connection, error)
        leaked.append(connection)

    def give_back_others(self: Connections, call: connections._Call, connection: Connection | None) -> None:
        if connection is None or connection not in leaked:
            give_back(self, call, connection)
        else:
            unended.append(call)

    def close_all(self: Connections) -> None:
        close(self)
        while leaked:
            leaked.pop().close()

    patch.setattr(connections, "_leave_clean", leave)
    patch.setattr(Connections, "close", close_all)
    patch.setattr(Connections, "_give_back", give_back_others)


@mutant("FAULTS-1", "FAULTS-4", "FAULTS-8", "FAULTS-9", "FAULTS-12", "FAULTS-13", backend="postgres")
def absence_of_the_server_swallowed(patch: pytest.MonkeyPatch) -> None:
    """A swallowed error: what cannot reach the server counts as committed."""

    def commit(sound: Any, handle: Any, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        with contextlib.suppress(BackendUnavailable):
            row: AccountRow | None = sound(handle, account_id, batch, timeout)
            return row
        return AccountRow(account_id, "", "", *batch[:3], "", 0)

    change_commit(patch, commit)


@mutant("SECRETS-2", backend="postgres")
def failed_batch_logged(patch: pytest.MonkeyPatch) -> None:
    """The log shows what could not be committed."""

    def commit(sound: Any, handle: Any, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        try:
            row: AccountRow | None = sound(handle, account_id, batch, timeout)
        except BackendUnavailable:
            _log.debug("could not commit %s", batch.puts)
            raise
        return row

    change_commit(patch, commit)
