"""Databases for the tests of the nio adapter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from nio_places import Ours, TheirFiles, Theirs, counted
from postgres_fixtures import postgres_database, postgres_url

__all__ = ["counted", "postgres_database", "postgres_url"]


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, on each of our backends."""
    if request.param == "memory":
        return f"memory://{uuid4()}"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/keys.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def memory_url() -> str:
    """An empty database in memory, for what does not depend on the backend."""
    return f"memory://{uuid4()}"


@pytest.fixture
def ours(url: str) -> Iterator[Ours]:
    """Our store, on each of our backends."""
    place = Ours(url)
    yield place
    place.close_all()


@pytest.fixture
def in_memory(memory_url: str) -> Iterator[Ours]:
    """Our store in memory, for what does not depend on the backend."""
    place = Ours(memory_url)
    yield place
    place.close_all()


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[Theirs]:
    """nio's SqliteStore."""
    place = Theirs(tmp_path)
    yield place
    place.close_all()


@pytest.fixture
def their_files(tmp_path: Path) -> Iterator[TheirFiles]:
    """nio's DefaultStore."""
    place = TheirFiles(tmp_path)
    yield place
    place.close_all()
