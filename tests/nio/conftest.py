"""Databases for the tests of the nio adapter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from database_urls import memory_url, url
from nio_places import Ours, TheirFiles, Theirs, counted
from postgres_fixtures import postgres_database, postgres_url

__all__ = ["counted", "memory_url", "postgres_database", "postgres_url", "url"]


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
