"""Statements with the settings that they need, as one round trip."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Final

import psycopg

from cryptostore.errors import BackendUnavailable

from .connecting import Connection
from .pipeline import Rows, Statement, run
from .row_security import FINGERPRINT

#: Seconds that a statement waits for another transaction's lock, at most.
_LOCK_SECONDS: Final = 2.0

_BEGIN: Final = Statement(b"BEGIN ISOLATION LEVEL READ COMMITTED")
_COMMIT: Final = Statement(b"COMMIT")
ROLLBACK: Final = Statement(b"ROLLBACK")

# All for this transaction alone. Where a policy hides rows, the server raises an error instead of hiding them. Only a
# warning says that a commit was not replicated. A stronger synchronous_commit than "on" (remote_apply) is kept.
_LIMITS: Final = b"""
    SELECT pg_catalog.set_config('statement_timeout', $1::pg_catalog.text, true),
           pg_catalog.set_config('lock_timeout', $2::pg_catalog.text, true),
           pg_catalog.set_config('row_security', 'off', true),
           pg_catalog.set_config('client_min_messages', 'warning', true),
           pg_catalog.set_config('synchronous_commit',
               CASE WHEN pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'remote_apply'
               THEN 'remote_apply' ELSE 'on' END, true)"""

# The role's limit for a transaction, which servers have from this version on.
_UNLIMITED: Final = b""",
           pg_catalog.set_config('transaction_timeout', '0', true)"""
_UNLIMITED_FROM: Final = 17_00_00

# Only plans by index for what looks rows up by key: without statistics, the planner thinks little of a million rows.
_BY_INDEX: Final = b""",
           pg_catalog.set_config('enable_seqscan', 'off', true),
           pg_catalog.set_config('enable_bitmapscan', 'off', true),
           pg_catalog.set_config('jit', 'off', true)"""

# Where our policies are in force, rows may be hidden by them, but not by what has changed since.
_BY_OUR_POLICIES: Final = (
    b""",
           pg_catalog.set_config('row_security', CASE WHEN ("""
    + FINGERPRINT % b"$3::pg_catalog.text"
    + b""") OPERATOR(pg_catalog.=) $4::pg_catalog.text THEN 'on' ELSE 'off' END, true)"""
)

# A wait for the synchronous standby that was cancelled: warning, or admin_shutdown.
_NOT_REPLICATED: Final = frozenset({"01000", "57P01"})

_AWAITS_STANDBY: Final = Statement(
    b"SELECT FROM pg_catalog.pg_stat_activity AS activity WHERE activity.usename OPERATOR(pg_catalog.=) current_user"
    b" AND activity.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()"
    b" AND activity.wait_event OPERATOR(pg_catalog.=) 'SyncRep' LIMIT 1"
)
# Half a batch that a silent network left at the server holds the rows' locks, maybe for hours. One that is not waiting
# for its client is at work and will end by itself.
_END_STALLED: Final = b"""
    SELECT pg_catalog.pg_terminate_backend(activity.pid) FROM pg_catalog.pg_locks AS held
    JOIN pg_catalog.pg_stat_activity AS activity ON activity.pid OPERATOR(pg_catalog.=) held.pid
    WHERE held.locktype OPERATOR(pg_catalog.=) 'transactionid' AND held.granted
    AND held.transactionid::pg_catalog.text OPERATOR(pg_catalog.=) $1::pg_catalog.text
    AND activity.usename OPERATOR(pg_catalog.=) current_user
    AND activity.wait_event OPERATOR(pg_catalog.=) 'ClientRead'"""
# A session is its login's, which may act as another role. Each sees, and ends, its own sessions alone.
_AS_LOGIN: Final = Statement(b"SELECT pg_catalog.set_config('role', 'none', true)")
_STANDBY_REMEDY: Final = (
    "let a standby follow again, or change synchronous_standby_names; after a fail-over, stop the old primary"
)


def read(connection: Connection, statement: Statement, *, by_index: bool = True) -> Rows:
    """The rows of a statement that reads."""
    # Without BEGIN: a pipeline is a transaction, and the settings end with it.
    return run(connection, _settings(connection, by_index=by_index), statement)[-1]


def write(connection: Connection, *statements: Statement, by_index: bool = False) -> list[Rows]:
    """Commit the statements, and return the rows of each."""
    with _committed(connection):
        return run(connection, *begin(connection, by_index=by_index), *statements, _COMMIT)[2:-1]


def begin(connection: Connection, *, by_index: bool) -> tuple[Statement, Statement]:
    """What opens a transaction, also one that takes several round trips."""
    return _BEGIN, _settings(connection, by_index=by_index)


def commit(connection: Connection) -> None:
    """End such a transaction."""
    with _committed(connection):
        run(connection, _COMMIT)


@contextlib.contextmanager
def _committed(connection: Connection) -> Iterator[None]:
    """Take a commit that was not replicated, as the synchronous standby demands, for a failure."""
    warnings: list[str] = []

    def note(notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING" and notice.sqlstate in _NOT_REPLICATED:
            warnings.append(notice.sqlstate)

    connection.add_notice_handler(note)
    try:
        yield
    finally:
        connection.remove_notice_handler(note)
    if warnings:
        connection.is_stuck = True
        raise BackendUnavailable(
            f"PostgreSQL at {connection.place} committed on the primary only: the wait for its synchronous "
            f"standby was cancelled; {_STANDBY_REMEDY}"
        )


def end_stalled(connection: Connection, transactions: Rows) -> None:
    """End this role's sessions, and its login's, that hold these transactions while their client is silent."""
    statements = [Statement(_END_STALLED, transaction) for transaction in transactions]
    if statements:
        run(connection, *statements, _AS_LOGIN, *statements)


def explain_lock(connection: Connection) -> None:
    """Raise BackendUnavailable where a commit of this role waits for a standby, since it keeps its locks till then."""
    of_role, _, of_login = run(connection, _AWAITS_STANDBY, _AS_LOGIN, _AWAITS_STANDBY)
    if of_role or of_login:
        connection.is_stuck = True
        raise BackendUnavailable(
            f"PostgreSQL at {connection.place} has a commit that waits for its synchronous standby, and this one "
            f"waits for that one's lock; {_STANDBY_REMEDY}"
        )


def unlimited(connection: Connection) -> bytes:
    """What to add to the settings, where the server has a limit of its own for a transaction."""
    return _UNLIMITED if connection.pgconn.server_version >= _UNLIMITED_FROM else b""


def _settings(connection: Connection, *, by_index: bool) -> Statement:
    seconds = max(0.001, connection.ends - time.monotonic())
    limits = (seconds, min(seconds / 2, _LOCK_SECONDS))
    parameters = [str(max(1, int(1000 * limit))) for limit in limits]
    text = _LIMITS + _BY_INDEX if by_index else _LIMITS
    if connection.policies is not None:
        text += _BY_OUR_POLICIES
        parameters += connection.policies
    return Statement(text + unlimited(connection), parameters)
