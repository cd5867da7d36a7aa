"""Mutants of the PostgreSQL backend's connections: what encryption leaves open, and commits that are severed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cryptostore import Batch, Changes
from cryptostore_postgres.connections import Connections
from cryptostore_postgres.options import PostgresOptions
from cryptostore_postgres.store import PostgresStore

from .registry import mutant


def _connected_with(patch: pytest.MonkeyPatch, changed: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """Let libpq be given something else than what the URL says."""
    original = Connections.__init__

    def init(connections: Connections, options: PostgresOptions) -> None:
        original(connections, replace(options, connection=changed(dict(options.connection))))

    patch.setattr(Connections, "__init__", init)


@mutant("SECRETS-3", backend="postgres")
def connection_in_plain_beside_the_pool(patch: pytest.MonkeyPatch) -> None:
    """A connection of its own, to the server's socket, is made without a look at the URL's options."""
    open_pool, close = Connections.open, Connections.close

    def open_both(connections: Connections, ends: float) -> None:
        open_pool(connections, ends)
        port = connections.read(lambda connection: connection.execute("SHOW port").fetchall()[0][0])
        # Over the network, the server of the case would refuse it.
        for socket in Path(tempfile.gettempdir()).glob(f"*/.s.PGSQL.{port}"):
            there = {**connections._arguments, "host": str(socket.parent), "port": port, "sslmode": "disable"}
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
def number_committed_before_the_records(patch: pytest.MonkeyPatch) -> None:
    """The number of a batch is committed by itself: what is severed behind it counts as committed."""
    original = PostgresStore._put_and_delete

    def put_and_delete(self: PostgresStore, connection: Any, changes: Changes) -> None:
        connection.execute("COMMIT")
        connection.execute("BEGIN")
        # With its answer, so that the number is stored before anything else is sent, on a slow machine, too.
        connection.execute("SELECT 1").fetchone()
        original(self, connection, changes)

    patch.setattr(PostgresStore, "_put_and_delete", put_and_delete)


@mutant("SEVERING-3", "SEVERING-4", backend="postgres")
def batch_without_an_answer_not_sent_again(patch: pytest.MonkeyPatch) -> None:
    """What was sent once counts as committed, although no answer came."""
    original = PostgresStore.commit

    def commit(self: PostgresStore, batch: Batch, timeout: float) -> None:
        if self.__dict__.get("sent") != batch.number:
            self.__dict__["sent"] = batch.number
            original(self, batch, timeout)

    patch.setattr(PostgresStore, "commit", commit)
