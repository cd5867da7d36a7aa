"""How many sessions the server is left with: after batches that failed, and after it ended idle ones itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from cryptostore import AccountRow, CryptoStoreError
from cryptostore_contract.proxy import Proxy
from cryptostore_postgres.database import PostgresDatabase as Database
from patience import wait_until
from postgres_database import ROLE, PostgresDatabase
from raw_databases import TIMEOUT, commit, next_batch, take_over

POOL_SIZE: Final = 2
#: Of each kind of failure; a third of them would fill the pool many times over.
FAILURES: Final = 34


@pytest.fixture
def proxy(breakable_database: PostgresDatabase) -> Iterator[Proxy]:
    with Proxy(breakable_database.address) as proxy:
        yield proxy


@pytest.fixture
def database(breakable_database: PostgresDatabase, schema: str, proxy: Proxy) -> Iterator[Database]:
    opened = breakable_database.open(schema, proxy.port, pool_size=POOL_SIZE)
    yield opened
    opened.close()


def sessions(admin: psycopg.Connection) -> int:
    """How many of ours the server has."""
    statement = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND application_name = 'matrix-cryptostore'"
    found = admin.execute(statement, [ROLE]).fetchone()
    assert found is not None
    return int(found[0])


def fail(database: Database, row: AccountRow, timeout: float) -> None:
    """Commit a batch that fails, whatever the reason."""
    with pytest.raises(CryptoStoreError):
        database.commit(row.id, next_batch(row, {b"refused": b"x" * 1_000}), timeout)


def test_a_hundred_failed_batches_leave_no_session_behind(
    database: Database, admin: psycopg.Connection, schema: str, proxy: Proxy
) -> None:
    row = take_over(database)
    record = Identifier(schema, "record")
    admin.execute(SQL("ALTER TABLE {} ADD CONSTRAINT none CHECK (key <> 'refused')").format(record))
    for _ in range(FAILURES):
        fail(database, row, TIMEOUT)
    admin.execute(SQL("ALTER TABLE {} DROP CONSTRAINT none").format(record))
    assert sessions(admin) <= POOL_SIZE
    for _ in range(FAILURES):
        proxy.cut_after(1_000)
        fail(database, row, TIMEOUT)
        proxy.pass_all()
    with admin.transaction():
        admin.execute(SQL("UPDATE {} SET sequence = sequence").format(Identifier(schema, "ownership")))
        for _ in range(FAILURES):
            fail(database, row, 0.1)
    # The server may take a moment to notice the end of a session.
    wait_until(lambda: sessions(admin) <= POOL_SIZE)
    commit(database, row, {b"taken": b"1"})


def test_sessions_that_the_server_ended_because_they_were_idle_cost_one_connection(
    breakable_database: PostgresDatabase, admin: psycopg.Connection, schema: str, proxy: Proxy
) -> None:
    role = Identifier(ROLE)
    admin.execute(SQL("ALTER ROLE {} SET idle_session_timeout = '500ms'").format(role))
    try:
        database = breakable_database.open(schema, proxy.port, pool_size=16)
        row = commit(database, take_over(database), {b"key": b"value"})
        with contextlib.ExitStack() as stack:
            for _ in range(16):
                stack.enter_context(database._connections.use(TIMEOUT))
        assert proxy.accepted == 16
        wait_until(lambda: sessions(admin) == 0)
        for connection in database._connections._idle:
            # As if they had been idle for longer than the second in which none is asked whether it works.
            connection.used_at -= 1.0
        assert database.get(row.id, [b"key"], TIMEOUT) == [(b"key", b"value")]
        assert proxy.accepted == 17
        database.close()
    finally:
        admin.execute(SQL("ALTER ROLE {} RESET idle_session_timeout").format(role))
