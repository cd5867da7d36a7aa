"""Fixtures for tests that need PostgreSQL; a conftest.py imports those that its tests use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from postgres_database import PostgresDatabase, own_database, provided_database
from postgres_harness import ExternalPostgresHarness, harness_for
from postgres_server import PostgresServer

__all__ = ["breakable_database", "postgres_database", "postgres_harness", "postgres_url"]


@pytest.fixture(scope="session")
def postgres_database() -> Iterator[PostgresDatabase]:
    """One database for this process of the run; without any, its tests fail and say what to do."""
    with provided_database() as database:
        yield database


@pytest.fixture(scope="session")
def breakable_database(postgres_database: PostgresDatabase) -> Iterator[PostgresDatabase]:
    """A database on a server that tests may stop and set up again, even where the environment names another."""
    if postgres_database.server is not None:
        yield postgres_database
        return
    server = PostgresServer()
    try:
        yield own_database(server)
    finally:
        server.close()


@pytest.fixture
def postgres_url(postgres_database: PostgresDatabase) -> Iterator[str]:
    """A backend's URL with an empty schema of the test's own."""
    schema = postgres_database.new_schema()
    yield postgres_database.url(schema)
    postgres_database.drop_schema(schema)


@pytest.fixture
def postgres_harness(postgres_database: PostgresDatabase) -> Iterator[ExternalPostgresHarness]:
    """The harness for a schema of the test's own."""
    harness = harness_for(postgres_database)
    try:
        yield harness
    finally:
        harness.close()
