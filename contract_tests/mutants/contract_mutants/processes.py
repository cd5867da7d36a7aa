"""Mutants in the suite's child processes: what a bug leaves behind when its process ends, or meets in another.

`python -m contract_mutants.processes NAME MODULE [ARGUMENT …]` runs a module of the suite with the bug.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final

import pytest
from psycopg.sql import SQL, Identifier

from cryptostore import AccountRow, Batch, InboundGroupSession, OlmSession, Row, Schema, SyncToken, TakeOver
from cryptostore.store.ring import RING_KEYS
from cryptostore_postgres import migrations
from cryptostore_postgres.connecting import Connection as PostgresConnection
from cryptostore_postgres.connections import Connections
from cryptostore_sqlite import schema
from cryptostore_sqlite.database import SQLiteDatabase
from cryptostore_sqlite.opened import OpenFile

from .registry import HOME, Break, mutant
from .sqlite import change_sql, commit_in_parts, kind_by_kind

_BUGS: Final[dict[str, Break]] = {}


def _in_children(*killed_by: str, backend: str = "sqlite") -> Callable[[Break], Break]:
    """Make a function a mutant that breaks the backend in child processes, and not in this one."""

    def add(bug: Break) -> Break:
        _BUGS[bug.__name__] = bug

        def start_broken(patch: pytest.MonkeyPatch) -> None:
            original: Any = subprocess.Popen

            def start(command: list[str], *arguments: Any, env: dict[str, str] | None = None, **named: Any) -> Any:
                env = dict(os.environ if env is None else env)
                if "-m" in command:
                    at = command.index("-m") + 1
                    command = [*command[:at], __name__, bug.__name__, *command[at:]]
                    env["PYTHONPATH"] = os.pathsep.join(filter(None, [env.get("PYTHONPATH"), HOME]))
                return original(command, *arguments, env=env, **named)

            patch.setattr(subprocess, "Popen", start)

        start_broken.__name__, start_broken.__doc__ = bug.__name__, bug.__doc__
        mutant(*killed_by, backend=backend)(start_broken)
        return bug

    return add


def _commit_later(patch: pytest.MonkeyPatch, is_time: Callable[[list[Batch]], bool]) -> None:
    """Acknowledge batches, and commit them when it is time; the first, which holds the ring, at once."""
    original = SQLiteDatabase.commit

    def commit(self: SQLiteDatabase, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        waiting: list[Batch] = self.__dict__.setdefault("waiting", [])
        waiting.append(batch)
        row = next((row for row in self.accounts(timeout) if row.id == account_id), None)
        while waiting and is_time(waiting):
            row = original(self, account_id, waiting.pop(0), timeout)
        return row and batch.row_after(row)

    patch.setattr(SQLiteDatabase, "commit", commit)


def _has(batch: Batch, kind: int) -> bool:
    return any(row.key[0] == kind for row in batch.puts)


@_in_children("RESTART-3", "RESTART-4")
def acknowledged_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    """A batch is committed with the one after it."""
    _commit_later(patch, lambda waiting: len(waiting) > 1)


@_in_children("MACHINE-3")
def committed_with_the_next_sync_token(patch: pytest.MonkeyPatch) -> None:
    """A batch waits for one with a sync token, as if a client wrote nothing between two syncs."""
    _commit_later(patch, lambda waiting: _has(waiting[-1], SyncToken.kind_number))


@_in_children("MACHINE-3")
def epoch_raised_with_the_first_batch(patch: pytest.MonkeyPatch) -> None:
    """The new owner of an account with batches leaves its predecessor unfenced if it ends before its own first one."""
    take_over, commit = SQLiteDatabase.take_over, SQLiteDatabase.commit
    owned: dict[int, AccountRow] = {}
    store = "UPDATE ownership SET epoch = ?, incarnation = ? WHERE account_id = ?"

    def take_over_later(
        self: SQLiteDatabase, user_id: str, device_id: str, claim: TakeOver, timeout: float
    ) -> AccountRow:
        before = self.find(user_id, device_id, timeout)
        row = owned[claim.incarnation] = take_over(self, user_id, device_id, claim, timeout)
        if before is not None and before.sequence:
            with self._connections.writing(timeout) as connection:
                connection.execute(store, (before.epoch, before.incarnation, row.id))
        return row

    def take_over_now(self: SQLiteDatabase, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        row = owned.pop(batch.incarnation, None)
        if row is not None:
            with self._connections.writing(timeout) as connection:
                connection.execute(store, (row.epoch, row.incarnation, row.id))
        return commit(self, account_id, batch, timeout)

    patch.setattr(SQLiteDatabase, "take_over", take_over_later)
    patch.setattr(SQLiteDatabase, "commit", take_over_now)


@_in_children("CRASHES-3")
def half_batch_at_a_kill(patch: pytest.MonkeyPatch) -> None:
    """A transaction for each kind that a batch puts, one for its deletes, and one for its number."""
    commit_in_parts(patch, kind_by_kind)


@_in_children("RESTART-2")
def room_keys_read_by_another_code(patch: pytest.MonkeyPatch) -> None:
    """Room keys that one process wrote as they are, another reads as if they had to be decoded first."""
    original = SQLiteDatabase.page

    def page(self: SQLiteDatabase, *arguments: Any) -> list[Row]:
        rows = original(self, *arguments)
        return [Row(key, value[:: -1 if key[0] == InboundGroupSession.kind_number else 1]) for key, value in rows]

    patch.setattr(SQLiteDatabase, "page", page)


def _change_puts(patch: pytest.MonkeyPatch, puts: Callable[[Batch], Sequence[Row]]) -> None:
    original = SQLiteDatabase.commit

    def commit(self: SQLiteDatabase, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        return original(self, account_id, batch._replace(puts=puts(batch)), timeout)

    patch.setattr(SQLiteDatabase, "commit", commit)


@_in_children("RESTART-6")
def every_other_batch_lost(patch: pytest.MonkeyPatch) -> None:
    """Lost updates: of every other batch, only the token is stored, and the key ring."""
    kept = {bytes([SyncToken.kind_number]), *RING_KEYS}
    _change_puts(patch, lambda batch: [row for row in batch.puts if row.key in kept or not batch.number % 2])


@_in_children("RESTART-7")
def number_used_again_after_a_take_over(patch: pytest.MonkeyPatch) -> None:
    """A new owner begins with the number of its predecessor's last batch."""
    change_sql(patch, "_TAKE_OVER", "epoch = epoch + 1", "epoch = epoch + 1, sequence = max(0, sequence - 1)")


@_in_children("SCHEMA-5")
def tables_without_records_emptied(patch: pytest.MonkeyPatch) -> None:
    """Closing takes the tables of a database without records for those of a failed start, and empties them."""
    original = SQLiteDatabase.close

    def close(self: SQLiteDatabase) -> None:
        with self._connections.writing(5) as connection:
            if not connection.execute("SELECT count(*) FROM record").fetchone()[0]:
                connection.execute("DELETE FROM ownership")
                connection.execute("DELETE FROM account")
        original(self)

    patch.setattr(SQLiteDatabase, "close", close)


@_in_children("NIO-1")
def ratchet_not_replaced_in_a_new_process(patch: pytest.MonkeyPatch) -> None:
    """An Olm session stays as the first process left it, and its ratchet goes back at every start."""
    _change_puts(patch, lambda batch: [row for row in batch.puts if row.key[0] != OlmSession.kind_number])


@_in_children("CONCURRENCY-11")
def used_after_a_fork(patch: pytest.MonkeyPatch) -> None:
    """A process that was forked off goes on with the files that its parent has open."""
    patch.setattr(OpenFile, "is_inherited", lambda _file: False)


@_in_children("CONCURRENCY-11", backend="postgres")
def connection_used_after_a_fork(patch: pytest.MonkeyPatch) -> None:
    """A process that was forked off goes on in its parent's session."""
    patch.setattr(Connections, "_is_inherited", lambda _connections: False)


@_in_children("SCHEMA-9")
def version_stored_before_the_tables(patch: pytest.MonkeyPatch) -> None:
    """Each statement of a migration is a transaction, and the version is stored by the first ones."""
    original = schema._statements

    def migrate(self: schema.Migrations, connection: Connection, path: Path) -> None:
        if self.inspect(connection, path) is None:
            for script in self._scripts:
                for statement in original(script):
                    connection.execute(statement)
                    connection.execute("COMMIT")
                    connection.execute("BEGIN IMMEDIATE")

    patch.setattr(schema.Migrations, "migrate", migrate)


@_in_children("SCHEMA-9", backend="postgres")
def version_committed_before_the_tables(patch: pytest.MonkeyPatch) -> None:
    """Each statement of a migration is a transaction, and the version is stored by the first ones."""

    def migrate(self: migrations.Migrations, connection: PostgresConnection, schema: str, present: Schema) -> None:
        for migration in self._all:
            if migration.version > present.version:
                table, *others, version, _ = migration.text.split(";")
                for statement in (table, version, *others):
                    connection.execute(SQL(statement).format(schema=Identifier(schema)))
                    connection.execute("COMMIT; BEGIN")

    patch.setattr(migrations.Migrations, "_migrate", migrate)


if __name__ == "__main__":
    name, module = sys.argv[1:3]
    sys.argv = sys.argv[2:]
    # The registry's module, not this one, which runs under another name.
    from contract_mutants import processes

    processes._BUGS[name](pytest.MonkeyPatch())
    runpy.run_module(module, run_name="__main__", alter_sys=True)
