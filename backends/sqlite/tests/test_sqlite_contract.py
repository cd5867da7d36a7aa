"""The SQLite backend against the contract."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

import sqlite_golden
from cryptostore_contract import Ability, Harness, StoreContract, limited_files, managed, not_verified
from ordinary_user import ordinary_user
from unverified import published


class SQLiteHarness(Harness):
    name = "sqlite"
    abilities = frozenset(
        {
            Ability.REOPEN,
            Ability.OTHER_PROCESS,
            Ability.PROCESSES_AT_ONCE,
            Ability.RAW_STORAGE,
            Ability.NEWER_SCHEMA,
            Ability.OLDER_SCHEMA,
            Ability.FULL_DISK,
            Ability.READ_ONLY,
            Ability.OPEN_TRANSACTIONS,
        }
    )

    def __init__(self) -> None:
        # Not in a folder of pytest, into which an ordinary user could not follow root.
        self._folder = Path(tempfile.mkdtemp(prefix="cryptostore-"))
        self._path = self._folder / "keys.db"

    @property
    def url(self) -> str:
        return f"sqlite:///{self._path}"

    def raw_storage(self) -> bytes:
        # In a process of its own: closing the files in this one would drop the locks that SQLite has on them.
        return subprocess.run(["cat", *self._files()], check=True, capture_output=True).stdout

    def claim_newer_schema(self) -> None:
        with self._connection() as connection:
            connection.execute("UPDATE schema_version SET version = 99, min_compatible = 99")

    def place_golden(self, version: int) -> None:
        for path in self._files():
            path.unlink()
        shutil.copyfile(sqlite_golden.golden(version), self._path)
        self._path.chmod(0o600)

    def full_disk(self) -> AbstractContextManager[None]:
        self._empty_write_ahead_log()
        return limited_files()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        for path, permissions in ((self._folder, 0o555), *((path, 0o444) for path in self._files())):
            path.chmod(permissions)
        try:
            with ordinary_user(self._folder, *self._files()):
                yield
        finally:
            self._folder.chmod(0o700)
            for path in self._files():
                path.chmod(0o600)

    def open_transactions(self) -> int:
        # What keeps the -wal from being emptied is one, or more.
        with self._connection() as connection:
            connection.execute("PRAGMA busy_timeout = 0")
            return int(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])

    def close(self) -> None:
        shutil.rmtree(self._folder)

    def _files(self) -> list[Path]:
        return sorted(self._folder.iterdir())

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
            yield connection

    def _empty_write_ahead_log(self) -> None:
        assert not self.open_transactions()


class TestSQLite(StoreContract):
    @pytest.fixture
    def harness(self) -> Iterator[Harness]:
        yield from managed(SQLiteHarness())


def test_what_sqlite_leaves_unverified() -> None:
    assert not_verified(StoreContract, SQLiteHarness) == published("SQLite")
