"""Fixtures: a primary that may be broken, and its synchronous standby."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from postgres_database import DATABASE, ROLE, own_database
from postgres_server import PostgresServer
from postgres_standby import PostgresStandby


@pytest.fixture
def primary() -> Iterator[PostgresServer]:
    """A server of this test alone."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def standby(primary: PostgresServer) -> Iterator[PostgresStandby]:
    """Its synchronous standby: no commit is acknowledged that it does not have."""
    own_database(primary)
    server = PostgresStandby(primary)
    server.make_synchronous()
    yield server
    server.close()


@pytest.fixture
def url_of_both(primary: PostgresServer, standby: PostgresStandby) -> str:
    """As an operator writes it who has two hosts: libpq looks for the one that takes writes."""
    hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
    return f"postgresql://{ROLE}@{hosts}/{DATABASE}?target_session_attrs=read-write"
