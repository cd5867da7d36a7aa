"""Fixtures of the import's tests: nio's file in a folder of its own, and a database to import into."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from command_line import run
from nio_sources import ALICE, BOB, Client
from postgres_fixtures import postgres_database, postgres_url

__all__ = ["postgres_database", "postgres_url", "run"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where nio's file lies, with nothing else in it."""
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def alice(folder: Path) -> Iterator[Client]:
    """A client on nio's SqliteStore."""
    client = Client(folder, ALICE)
    yield client
    client.close()


@pytest.fixture
def bob(folder: Path) -> Iterator[Client]:
    """Another client in the same file."""
    client = Client(folder, BOB)
    yield client
    client.close()


@pytest.fixture
def memory_url() -> str:
    """An empty database in memory, for what does not depend on the backend."""
    return f"memory://{uuid4()}"


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """An empty SQLite database."""
    return f"sqlite:///{tmp_path}/imported.db"


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database on each of our backends."""
    return str(request.getfixturevalue(f"{request.param}_url"))
