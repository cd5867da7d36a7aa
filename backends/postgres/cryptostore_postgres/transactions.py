"""A write transaction as one pipeline: one round trip, no lock and no setting that outlives it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Final

import psycopg

from cryptostore.errors import BackendUnavailable

from .connections import Connection

#: Seconds that a statement waits for another transaction's lock, at most.
_LOCK_SECONDS: Final = 2.0

# All for this transaction alone. A stronger synchronous_commit than "on" (remote_apply) is kept.
_SETTINGS: Final = """
    SELECT set_config('statement_timeout', %s, true),
           set_config('lock_timeout', %s, true),
           set_config('synchronous_commit',
                      CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END,
                      true)
"""

# A wait for the synchronous standby that was cancelled: warning, or admin_shutdown.
_NOT_REPLICATED: Final = frozenset({"01000", "57P01"})


@contextlib.contextmanager
def transaction(connection: Connection, ends: float) -> Iterator[None]:
    """Queue the statements of the context between BEGIN and COMMIT and send all of it as one round trip.

    The first statement that raises makes the server skip the rest. Results are there after the context.
    """
    with _standby_warnings(connection) as warnings, connection.pipeline() as pipeline:
        try:
            connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
            connection.execute(_SETTINGS, _milliseconds(ends))
            yield
            connection.execute("COMMIT")
        except psycopg.Error:
            # Collects what the server skipped, so that the driver does not log that as errors of its own.
            with contextlib.suppress(psycopg.Error):
                pipeline.sync()
            raise
    if warnings:
        raise BackendUnavailable(
            "PostgreSQL committed on the primary only: the wait for its synchronous standby was cancelled"
        )


def _milliseconds(ends: float) -> list[str]:
    seconds = max(0.001, ends - time.monotonic())
    return [str(max(1, int(1000 * limit))) for limit in (seconds, min(seconds / 2, _LOCK_SECONDS))]


@contextlib.contextmanager
def _standby_warnings(connection: Connection) -> Iterator[list[str]]:
    warnings: list[str] = []

    def note(notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING" and notice.sqlstate in _NOT_REPLICATED:
            warnings.append(notice.sqlstate)

    connection.add_notice_handler(note)
    try:
        yield warnings
    finally:
        connection.remove_notice_handler(note)
