"""Settings of a server or a role that have no say, and those that the user is told of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from psycopg.sql import SQL, Identifier

from cryptostore import Range, open_backend
from patience import PATIENCE
from postgres_database import ROLE, PostgresDatabase, own_database
from postgres_server import PostgresServer
from raw_databases import next_batch, take_over

#: More than a server looks up in the time that it is given here.
KEYS: Final = [number.to_bytes(4) for number in range(200_000)]
WRITTEN: Final = dict.fromkeys(KEYS[:40_000], b"x" * 100)


@pytest.fixture(params=["statement_timeout", "transaction_timeout"])
def hurried(request: pytest.FixtureRequest, breakable_database: PostgresDatabase) -> Iterator[None]:
    """The role has a time limit of its own."""
    with breakable_database.connect() as connection:
        if connection.info.server_version < 170_000 and request.param == "transaction_timeout":
            pytest.skip("not verified: PostgreSQL has this setting from 17 on")
        role, name = Identifier(ROLE), Identifier(request.param)
        connection.execute(SQL("ALTER ROLE {} SET {} = '200ms'").format(role, name))
        yield
        connection.execute(SQL("ALTER ROLE {} RESET {}").format(role, name))


@pytest.mark.usefixtures("hurried")
def test_the_roles_time_limits_are_not_those_of_a_call(breakable_database: PostgresDatabase, schema: str) -> None:
    database = breakable_database.open(schema)
    row = take_over(database)
    row_after = database.commit(row.id, next_batch(row, WRITTEN), PATIENCE)
    assert row_after == row._replace(sequence=1)
    assert len(database.get(row.id, KEYS, PATIENCE)) == len(WRITTEN)
    assert len(database.ranges(row.id, [Range(b"", None)], PATIENCE)) == len(WRITTEN)
    assert len(database.ranges(row.id, [Range(key, key + b"\x00") for key in KEYS], PATIENCE)) == len(WRITTEN)
    assert len(database.page(row.id, Range(b"", None), len(KEYS), PATIENCE)) == len(WRITTEN)
    database.delete(row.id, PATIENCE)
    assert database.accounts(PATIENCE) == []
    database.close()


@pytest.fixture(scope="module")
def careless() -> Iterator[PostgresDatabase]:
    """A database on a server that was set up for speed."""
    server = PostgresServer({"fsync": "off", "full_page_writes": "off"})
    yield own_database(server)
    server.close()


def test_a_server_that_is_not_durable_is_told(careless: PostgresDatabase, caplog: pytest.LogCaptureFixture) -> None:
    with open_backend(careless.url("cryptostore")) as backend:
        assert backend.health().not_durable == "fsync = off and full_page_writes = off"
    [message] = caplog.messages
    assert "fsync = off and full_page_writes = off: a power failure may take acknowledged batches" in message


def test_a_server_that_is_durable_needs_no_word(
    breakable_database: PostgresDatabase, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    with open_backend(breakable_database.url(schema)) as backend:
        assert backend.health().not_durable == ""
    assert caplog.messages == []
