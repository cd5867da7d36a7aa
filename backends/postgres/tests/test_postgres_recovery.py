"""A handle that met a server which refuses goes on when it refuses no more; and the pool that makes this quick."""

from __future__ import annotations

from typing import Final

import psycopg
import pytest
from psycopg.sql import SQL, Composed, Identifier
from psycopg_pool import ConnectionPool

from cryptostore import Account, BackendUnavailable, Changes, SyncToken, open_backend
from cryptostore_postgres.connections import Connections
from cryptostore_postgres.options import parse
from postgres_database import DATABASE, ROLE, PostgresDatabase

ALICE: Final = Account("@alice:example.org", "DEVICE")
BATCH: Final = Changes([SyncToken("later")])

READ_ONLY: Final = (
    SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(Identifier(DATABASE)),
    SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(Identifier(DATABASE)),
)
NO_CONNECTIONS: Final = (
    SQL("ALTER ROLE {} CONNECTION LIMIT 0").format(Identifier(ROLE)),
    SQL("ALTER ROLE {} CONNECTION LIMIT -1").format(Identifier(ROLE)),
)


@pytest.fixture
def url(breakable_database: PostgresDatabase, schema: str) -> str:
    return f"{breakable_database.url(schema)}&deadline=2"


def end_other_sessions(admin: psycopg.Connection) -> None:
    admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid()"
    )


@pytest.mark.parametrize(("begin", "end"), [READ_ONLY, NO_CONNECTIONS], ids=["read-only", "too many connections"])
def test_an_open_store_goes_on_when_the_server_does(
    url: str, admin: psycopg.Connection, begin: Composed, end: Composed
) -> None:
    with open_backend(url) as backend, backend.open_store(ALICE) as store:
        store.apply(Changes([SyncToken("before")]))
        admin.execute(begin)
        try:
            # The sessions that come now are those that the store is left with.
            end_other_sessions(admin)
            with pytest.raises(BackendUnavailable):
                store.apply(BATCH)
        finally:
            admin.execute(end)
        store.apply(BATCH)
    with open_backend(url) as backend:
        assert backend.open_store(ALICE).get(SyncToken, [()]) == {(): SyncToken("later")}
        assert backend.accounts()[ALICE].sequence == 2


def test_a_handle_that_was_opened_on_a_read_only_server_writes_when_it_may(url: str, admin: psycopg.Connection) -> None:
    open_backend(url).close()
    begin, end = READ_ONLY
    admin.execute(begin)
    try:
        backend = open_backend(url)
        with pytest.raises(BackendUnavailable, match="connect to the primary"):
            backend.open_store(ALICE)
    finally:
        admin.execute(end)
    with backend:
        backend.open_store(ALICE).apply(BATCH)


def test_a_server_without_a_free_connection_is_told_from_one_that_is_away(url: str, admin: psycopg.Connection) -> None:
    begin, end = NO_CONNECTIONS
    admin.execute(begin)
    try:
        with pytest.raises(BackendUnavailable, match=r"raise max_connections .* or lower pool_size"):
            open_backend(url)
    finally:
        admin.execute(end)


def test_the_pool_looks_for_a_server_that_was_away_often_and_not_long() -> None:
    connections = Connections(parse("postgresql://bot@db.example.org/keys?pool_size=7&deadline=3", {}))
    pool = connections._pool
    assert isinstance(pool, ConnectionPool)
    assert (pool.min_size, pool.max_size, pool.timeout) == (1, 7, 3)
    # With its default of 300 s it sleeps through the server's return.
    assert pool.reconnect_timeout <= 5
    assert pool._check == connections._check
    assert connections._arguments["connect_timeout"] == 2
    assert connections._arguments["prepare_threshold"] is None
    given = Connections(parse("postgresql://db.example.org/keys?connect_timeout=7", {}))
    assert given._arguments["connect_timeout"] in {7, "7"}


def test_whoever_waits_for_a_connection_asks_the_pool_again_before_it_gives_up(
    breakable_database: PostgresDatabase, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    getconn = ConnectionPool.getconn

    def noted(pool: ConnectionPool[psycopg.Connection], timeout: float) -> psycopg.Connection:
        waits.append(timeout)
        return getconn(pool, timeout)

    monkeypatch.setattr(ConnectionPool, "getconn", noted)
    with open_backend(f"{breakable_database.url(schema)}&deadline=60") as backend:
        backend.open_store(ALICE).apply(BATCH)
    assert waits
    assert max(waits) <= 5
