"""What the tests of the SQLite backend share."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cryptostore import Account, open_backend
from cryptostore_sqlite.database import SQLiteDatabase
from cryptostore_sqlite.plugin import open_sqlite
from ordinary_user import ordinary_user
from raw_databases import TIMEOUT

Execute = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def alice() -> Account:
    return Account("@alice:example.org", "ALICEDEVICE")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def database(url: str) -> Iterator[SQLiteDatabase]:
    database = open_sqlite(url, {}, TIMEOUT)
    yield database
    database.close()


@pytest.fixture
def execute(path: Path) -> Execute:
    """Runs one statement on the database file, past the backend."""

    def run(sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            return connection.execute(sql, parameters).fetchall()

    return run


@pytest.fixture
def ordinary_users_folder(url: str) -> Iterator[Path]:
    """A folder of an ordinary user, who runs the test even if root began it: permissions do not bind root."""
    open_backend(url).close()
    folder = Path(tempfile.mkdtemp(prefix="cryptostore-"))
    try:
        with ordinary_user(folder):
            yield folder
    finally:
        folder.chmod(0o700)
        shutil.rmtree(folder)
