"""Mutants of the PostgreSQL backend's connections: what encryption leaves open, and commits that are severed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cryptostore import AccountRow, BackendUnavailable, Batch
from cryptostore_postgres.connecting import Connection, Connector, arguments
from cryptostore_postgres.connections import Connections
from cryptostore_postgres.database import PostgresDatabase
from cryptostore_postgres.options import PostgresOptions
from cryptostore_postgres.portions import portions
from cryptostore_postgres.transactions import write

from .postgres import change_commit
from .registry import mutant


def _connected_with(patch: pytest.MonkeyPatch, changed: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """Let libpq be given something else than what the URL says."""
    original = Connector.__init__

    def init(connector: Connector, options: PostgresOptions) -> None:
        original(connector, replace(options, connection=changed(dict(options.connection))))

    patch.setattr(Connector, "__init__", init)


@mutant("SECRETS-3", backend="postgres")
def connection_in_plain_beside_the_pool(patch: pytest.MonkeyPatch) -> None:
    """A connection of its own, to the server's socket, is made without a look at the URL's options."""
    open_pool, close = Connections.open, Connections.close

    def open_both(connections: Connections, ends: float) -> None:
        open_pool(connections, ends)
        with connections.use(ends - time.monotonic()) as connection:
            [(port,)] = connection.execute("SHOW port").fetchall()
        # Over the network, the server of the case would refuse it.
        for socket in Path(tempfile.gettempdir()).glob(f"*/.s.PGSQL.{port}"):
            [host] = connections._connector._hosts.in_order()
            there = {**arguments(host), "host": str(socket.parent), "port": port, "sslmode": "disable"}
            connections.__dict__["beside"] = psycopg.connect(**there)

    def close_both(connections: Connections) -> None:
        close(connections)
        if beside := connections.__dict__.get("beside"):
            beside.close()

    patch.setattr(Connections, "open", open_both)
    patch.setattr(Connections, "close", close_both)


@mutant("SECRETS-4", backend="postgres")
def certificate_not_verified(patch: pytest.MonkeyPatch) -> None:
    """Any certificate will do: where the URL demands its verification, encryption alone is demanded."""

    def unverified(connection: dict[str, Any]) -> dict[str, Any]:
        if connection.get("sslmode") == "verify-full":
            del connection["sslrootcert"]
            connection["sslmode"] = "require"
        return connection

    _connected_with(patch, unverified)


@mutant("SECRETS-5", backend="postgres")
def encryption_preferred_where_it_is_demanded(patch: pytest.MonkeyPatch) -> None:
    """A server without TLS is told everything in plain."""
    _connected_with(patch, lambda connection: {**connection, "sslmode": "prefer"})


@mutant("SEVERING-2", "SEVERING-4", backend="postgres")
def number_committed_before_the_rows(patch: pytest.MonkeyPatch) -> None:
    """The number of a batch is committed by itself: what is severed behind it counts as committed."""
    original = PostgresDatabase._committed

    def committed(self: PostgresDatabase, connection: Connection, account_id: int, batch: Batch) -> AccountRow | None:
        row = original(self, connection, account_id, batch._replace(puts=(), deletes=()))
        if row is not None:
            for portion in portions(batch):
                owner = [account_id, batch.epoch, batch.incarnation]
                write(connection, self._storing(portion, [batch.number, *owner, batch.number]))
        return row

    patch.setattr(PostgresDatabase, "_committed", committed)


@mutant("SEVERING-1", backend="postgres")
def unknown_outcome_said_to_be_known(patch: pytest.MonkeyPatch) -> None:
    """A batch of which no answer came is said not to have been sent."""

    def commit(sound: Any, handle: Any, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        try:
            answer: AccountRow | None = sound(handle, account_id, batch, timeout)
        except BackendUnavailable as error:
            error.outcome_unknown = False
            raise
        return answer

    change_commit(patch, commit)


@mutant("SEVERING-3", "SEVERING-4", backend="postgres")
def batch_without_an_answer_not_sent_again(patch: pytest.MonkeyPatch) -> None:
    """What was sent once counts as committed, although no answer came."""
    sent: set[tuple[int, int, int]] = set()

    def commit(sound: Any, handle: Any, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        if batch[:3] in sent:
            [row] = [row for row in handle.accounts(timeout) if row.id == account_id]
            return batch.row_after(row)
        sent.add(batch[:3])
        answer: AccountRow | None = sound(handle, account_id, batch, timeout)
        return answer

    change_commit(patch, commit)
