"""Fixtures of the PostgreSQL backend's tests."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from command_line import run
from cryptostore_postgres.database import PostgresDatabase as Database
from postgres_database import DATABASE, PostgresDatabase
from postgres_fixtures import breakable_database, postgres_database, postgres_harness, postgres_url
from postgres_pair import primary, standby, url_of_both
from postgres_roles import roles
from postgres_server import PostgresServer

__all__ = [
    "breakable_database",
    "postgres_database",
    "postgres_harness",
    "postgres_url",
    "primary",
    "roles",
    "run",
    "standby",
    "url_of_both",
]


@pytest.fixture
def database_schema(postgres_database: PostgresDatabase) -> Iterator[str]:
    """The name of a schema for `database`, in the database of the run."""
    name = postgres_database.new_schema()
    yield name
    postgres_database.drop_schema(name)


@pytest.fixture
def database(postgres_database: PostgresDatabase, database_schema: str) -> Iterator[Database]:
    """An open database, without the core before it."""
    opened = postgres_database.open(database_schema)
    yield opened
    opened.close()


@pytest.fixture
def server(breakable_database: PostgresDatabase) -> PostgresServer:
    """The server, which a test may set up again."""
    assert breakable_database.server is not None
    return breakable_database.server


@pytest.fixture
def admin(server: PostgresServer) -> Iterator[psycopg.Connection]:
    """The superuser in the tests' database."""
    with server.connect(DATABASE) as connection:
        yield connection


@pytest.fixture
def schema(breakable_database: PostgresDatabase) -> Iterator[str]:
    """The name of a schema that does not exist."""
    name = breakable_database.new_schema()
    yield name
    breakable_database.drop_schema(name)
