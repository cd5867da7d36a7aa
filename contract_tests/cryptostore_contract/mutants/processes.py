"""Mutants in the suite's child processes: what a bug leaves behind when its process ends, or meets in another.

`python -m cryptostore_contract.mutants.processes NAME MODULE [ARGUMENT …]` runs a module of the suite with the bug.
"""

from __future__ import annotations

import os
import runpy
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from cryptostore import Batch, Changes, FieldType, OlmSession, SyncToken
from cryptostore_contract.cases.schema import STARTERS
from cryptostore_contract.samples import sample
from cryptostore_sqlite import accounts, columns, connections, schema
from cryptostore_sqlite.schema import Migrations
from cryptostore_sqlite.store import SQLiteStore

from .registry import Break, mutant
from .sqlite import kind_by_kind

_BUGS: Final[dict[str, Break]] = {}

#: How long a process waits for others that start with it; in most cases there are none.
_STARTING_SECONDS: Final = 5.0


def _in_children(*killed_by: str) -> Callable[[Break], Break]:
    """Make a function a mutant that breaks the backend in child processes, and not in this one."""

    def add(bug: Break) -> Break:
        _BUGS[bug.__name__] = bug

        def start_broken(patch: pytest.MonkeyPatch) -> None:
            original = subprocess.Popen

            def start(command: list[str], *arguments: Any, **named: Any) -> Any:
                if command[1:2] == ["-m"]:
                    command = [command[0], "-m", __name__, bug.__name__, *command[2:]]
                return original(command, *arguments, **named)

            patch.setattr(subprocess, "Popen", start)

        start_broken.__name__, start_broken.__doc__ = bug.__name__, bug.__doc__
        mutant(*killed_by, backend="sqlite")(start_broken)
        return bug

    return add


@_in_children("RESTART-3", "RESTART-4")
def acknowledged_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    """A batch is committed with the one after it."""
    original = SQLiteStore.commit

    def commit(self: SQLiteStore, batch: Batch, timeout: float) -> None:
        waiting: Batch | None = self.__dict__.get("waiting")
        if waiting is not None:
            original(self, waiting, timeout)
        self.__dict__["waiting"] = batch

    patch.setattr(SQLiteStore, "commit", commit)


@_in_children("MACHINE-3")
def committed_with_the_next_sync_token(patch: pytest.MonkeyPatch) -> None:
    """A batch waits for one with a sync token, as if a client wrote nothing between two syncs."""
    original = SQLiteStore.commit

    def commit(self: SQLiteStore, batch: Batch, timeout: float) -> None:
        waiting: list[Batch] = self.__dict__.setdefault("waiting", [])
        waiting.append(batch)
        if batch.changes.puts(SyncToken):
            while waiting:
                original(self, waiting.pop(0), timeout)

    patch.setattr(SQLiteStore, "commit", commit)


@_in_children("MACHINE-3")
def epoch_raised_with_the_first_batch(patch: pytest.MonkeyPatch) -> None:
    """The new owner of an account with batches leaves its predecessor unfenced if it ends before its own first one."""
    take_over, expects = accounts.take_over, SQLiteStore._expects

    def take_over_later(connection: sqlite3.Connection, *arguments: Any) -> Any:
        account_id, ownership = take_over(connection, *arguments)
        connection.execute("UPDATE account SET epoch = epoch - (sequence > 0) WHERE id = ?", (account_id,))
        return account_id, ownership

    def take_over_now(self: SQLiteStore, connection: sqlite3.Connection, batch: Batch) -> bool:
        raised = "UPDATE account SET epoch = max(epoch, ?) WHERE id = ?"
        connection.execute(raised, (self.ownership.epoch, self._id))
        return expects(self, connection, batch)

    patch.setattr(accounts, "take_over", take_over_later)
    patch.setattr(SQLiteStore, "_expects", take_over_now)


@_in_children("CRASHES-3", "MACHINE-3", "RESTART-4")
def half_batch_at_a_kill(patch: pytest.MonkeyPatch) -> None:
    """A transaction for each kind of a batch."""
    kind_by_kind(patch)


@_in_children("RESTART-2")
def texts_read_in_the_locales_encoding(patch: pytest.MonkeyPatch) -> None:
    """What one process wrote as UTF-8, another reads as Latin-1."""

    def decode(value: bytes) -> str:
        return value.decode("latin-1")

    changed = {**columns._FROM_COLUMN, FieldType.TEXT: decode, FieldType.IDENTIFIER: decode}
    patch.setattr(columns, "_FROM_COLUMN", changed)


@_in_children("RESTART-6")
def every_other_batch_lost(patch: pytest.MonkeyPatch) -> None:
    """Lost updates: of every other batch, only the token is stored."""
    original = SQLiteStore.commit

    def commit(self: SQLiteStore, batch: Batch, timeout: float) -> None:
        dropped = Batch(batch.number, Changes([sample(SyncToken, batch.number)]))
        original(self, dropped if batch.number % 2 else batch, timeout)

    patch.setattr(SQLiteStore, "commit", commit)


@_in_children("RESTART-7")
def number_used_again_after_a_take_over(patch: pytest.MonkeyPatch) -> None:
    """A new owner begins with the number of its predecessor's last batch."""
    raised = accounts._TAKE_OVER.replace("epoch = epoch + 1", "epoch = epoch + 1, sequence = max(0, sequence - 1)")
    patch.setattr(accounts, "_TAKE_OVER", raised)


@_in_children("SCHEMA-5")
def tables_made_anew(patch: pytest.MonkeyPatch) -> None:
    """Whoever saw an empty file makes the tables, and drops those that another has made since."""

    def migrate(self: Migrations, connection: sqlite3.Connection, _path: Path) -> None:
        found = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        for (name,) in connection.execute(found).fetchall():
            connection.execute(f'DROP TABLE "{name.decode()}"')
        for script in self._scripts:
            for statement in schema._statements(script):
                connection.execute(statement)

    inspect = connections._inspect

    def inspect_and_wait(path: Path, *arguments: Any) -> Any:
        found = inspect(path, *arguments)
        if found is None:
            _take_turns(path.parent)
        return found

    patch.setattr(Migrations, "migrate", migrate)
    patch.setattr(connections, "_inspect", inspect_and_wait)


def _take_turns(folder: Path) -> None:
    """Wait until all that start together have come here, then go on one after the other."""
    (folder / f"starter-{os.getpid()}").touch()
    ends = time.monotonic() + _STARTING_SECONDS
    while len(starters := sorted(folder.glob("starter-*"))) < STARTERS and time.monotonic() < ends:
        time.sleep(0.01)
    time.sleep(0.3 * [path.name for path in starters].index(f"starter-{os.getpid()}"))


@_in_children("NIO-1")
def ratchet_not_replaced_in_a_new_process(patch: pytest.MonkeyPatch) -> None:
    """An Olm session that is there already stays as it is, and its ratchet goes back at every start."""
    original = SQLiteStore._put_and_delete

    def put_and_delete(self: SQLiteStore, connection: sqlite3.Connection, changes: Changes) -> None:
        kept = [one for kind in changes.kinds() if kind is not OlmSession for one in changes.puts(kind)]
        deletes = [(kind, key) for kind in changes.kinds() for key in changes.deletes(kind)]
        original(self, connection, Changes(kept, deletes))

    patch.setattr(SQLiteStore, "_put_and_delete", put_and_delete)


if __name__ == "__main__":
    name, module = sys.argv[1:3]
    sys.argv = sys.argv[2:]
    # The registry's module, not this one, which runs under another name.
    from cryptostore_contract.mutants import processes

    processes._BUGS[name](pytest.MonkeyPatch())
    runpy.run_module(module, run_name="__main__", alter_sys=True)
