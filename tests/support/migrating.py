"""Programs of another schema: a backend that is opened with a folder of migrations, here and in processes.

`python migrating.py FOLDER [STATEMENT]` waits for a word, opens the database whose URL is in the environment, and says
what schema it has then. In SQLite it is killed by SIGKILL as it begins a migration's statement of that number, from 1.
"""

from __future__ import annotations

import functools
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Final
from unittest import mock

from cryptostore import Account, Backend, Database
from cryptostore.plugins.urls import CommonOptions, options_of, scheme_of
from cryptostore.store.attempts import Attempts
from cryptostore_contract.children import Child
from cryptostore_contract.golden import GOLDEN
from cryptostore_contract.handles import everything
from cryptostore_contract.samples import exact

_URL_VARIABLE: Final = "CRYPTOSTORE_TEST_MIGRATING_URL"


def migrations_of(package: str, into: Path, *more: str) -> Path:
    """A folder with the migrations that a package ships, and with more behind them."""
    into.mkdir()
    shipped = [file for file in resources.files(package).joinpath("migrations").iterdir() if file.is_file()]
    for file in shipped:
        (into / file.name).write_bytes(file.read_bytes())
    for number, text in enumerate(more, len(shipped) + 1):
        (into / f"{number:04}_only_in_tests.sql").write_text(text, encoding="utf-8")
    return into


def opened_with(folder: Path, url: str, **options: Any) -> Backend:
    """A handle of the program whose migrations are those in the folder."""
    remaining = options_of(url, options)
    common = CommonOptions.take_from(remaining)
    opened = _opened_sqlite if scheme_of(url) == "sqlite" else _opened_postgres
    database = Attempts(common.deadline).run(functools.partial(opened, folder, url, remaining))
    return Backend(database, name=scheme_of(url), deadline=common.deadline, owner=common.owner)


def _opened_sqlite(folder: Path, url: str, options: Mapping[str, Any], timeout: float) -> Database:
    from cryptostore_sqlite import files
    from cryptostore_sqlite.connections import Connections
    from cryptostore_sqlite.database import SQLiteDatabase
    from cryptostore_sqlite.given import path_of
    from cryptostore_sqlite.schema import Migrations

    path = path_of(url)
    files.ensure_private_file(path)
    return SQLiteDatabase(Connections(path, timeout, Migrations(folder)))


def _opened_postgres(folder: Path, url: str, options: Mapping[str, Any], timeout: float) -> Database:
    from cryptostore_postgres.database import PostgresDatabase
    from cryptostore_postgres.migrations import Migrations
    from cryptostore_postgres.options import parse

    return PostgresDatabase(parse(url, options), timeout, Migrations(folder))


def assert_golden(backend: Backend) -> None:
    """Every account and record of a golden database is there, and nothing else."""
    assert {account: _contents(backend, account) for account in backend.accounts()} == {
        account: sorted(map(repr, map(exact, records))) for account, records in GOLDEN.items()
    }


def _contents(backend: Backend, account: Account) -> list[str]:
    return sorted(repr(exact(record)) for records in everything(backend, account).values() for record in records)


def is_killed_at(folder: Path, url: str, statement: int) -> bool:
    """Whether a process that opens a SQLite database came so far in its migrations, where it was killed."""
    command = [sys.executable, __file__, str(folder), str(statement)]
    environment = os.environ | {_URL_VARIABLE: url}
    done = subprocess.run(command, input="go\n", capture_output=True, text=True, env=environment, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


@contextmanager
def starting(folder: Path, url: str) -> Iterator[Child]:
    """A process that has said that it is ready, and opens the database when it is told to go."""
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | {_URL_VARIABLE: url},
        ) as process,
    ):
        try:
            child = Child(process, errors)
            assert child.line() == "ready"
            yield child
        finally:
            process.kill()


def _kill_at(statement: int) -> None:
    class Watched(sqlite3.Connection):
        _begun = 0

        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            # Only migrations are written while a database is opened; the look at its version changes nothing.
            self._begun += sql == "BEGIN IMMEDIATE" or (self._begun > 0 and not sql.startswith(("SELECT", "PRAGMA")))
            if self._begun > statement:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().execute(sql, *parameters)

    mock.patch.object(sqlite3, "connect", functools.partial(sqlite3.connect, factory=Watched)).start()


if __name__ == "__main__":
    print("ready", flush=True)  # noqa: T201  # what a child says goes to its parent
    sys.stdin.readline()
    if len(sys.argv) > 2:  # a number was given
        _kill_at(int(sys.argv[2]))
    with opened_with(Path(sys.argv[1]), os.environ[_URL_VARIABLE]) as opened:
        print(f"schema {opened.schema().version}", flush=True)  # noqa: T201  # the same
