"""Databases for the tests of the nio adapter."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from nio_places import Ours, TheirFiles, Theirs, counted
from postgres_server import PostgresServer

__all__ = ["counted"]


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A real PostgreSQL, for every test of the session."""
    given = os.environ.get("CRYPTOSTORE_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    server = PostgresServer()
    try:
        yield server.url()
    finally:
        server.close()


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, on each of our backends."""
    if request.param == "memory":
        return f"memory://{uuid4()}"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/keys.db"
    server = str(request.getfixturevalue("postgres_url"))
    return f"{server}{'&' if '?' in server else '?'}schema=nio_{uuid4().hex}"


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
