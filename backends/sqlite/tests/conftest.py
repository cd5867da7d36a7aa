"""What the tests of the SQLite backend share."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cryptostore import Account, open_backend, plugins

_ORDINARY_USER = 65_534

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
def execute(path: Path) -> Execute:
    """Runs one statement on the database file, past the backend."""

    def run(sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            return connection.execute(sql, parameters).fetchall()

    return run


@pytest.fixture
def ordinary_users_folder(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of an ordinary user, who runs the test even if root began it: permissions do not bind root."""
    # Whatever is imported or found on first use is so before, in places that only root may read.
    found = plugins._entry_points()
    monkeypatch.setattr(plugins, "_entry_points", lambda: found)
    open_backend(url).close()
    folder = Path(tempfile.mkdtemp(prefix="cryptostore-"))
    was_root = os.geteuid() == 0
    if was_root:
        os.chown(folder, _ORDINARY_USER, -1)
        os.seteuid(_ORDINARY_USER)
    try:
        yield folder
    finally:
        if was_root:
            os.seteuid(0)
        folder.chmod(0o700)
        shutil.rmtree(folder)
