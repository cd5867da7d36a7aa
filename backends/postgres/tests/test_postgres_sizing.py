"""How many connections bots take, as the page about PostgreSQL says: by it, max_connections is chosen."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from cryptostore import Account, Backend, BackendUnavailable, Changes, CryptoStore, SyncToken, open_backend
from cryptostore_contract.handles import own
from cryptostore_contract.waiting import result_of, start
from patience import wait_until
from postgres_database import ROLE, PostgresDatabase
from postgres_server import PostgresServer

BOTS, POOL_SIZE, CALLS = 40, 2, 3


@pytest.fixture
def url(breakable_database: PostgresDatabase, schema: str) -> str:
    return f"{breakable_database.url(schema)}&deadline=60"


@pytest.fixture
def taken(admin: psycopg.Connection) -> Callable[[], int]:
    """How many of the server's connections the bots have."""

    def count() -> int:
        row = admin.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", [ROLE]).fetchone()
        assert row is not None
        return int(row[0])

    return count


def bot(number: int) -> Account:
    return Account(f"@bot{number}:example.org", "BOT")


@contextlib.contextmanager
def under_load(server: PostgresServer, schema: str, stores: list[CryptoStore]) -> Iterator[None]:
    """Let every bot make more calls at once than it has connections, none of which ends inside the context."""
    calls: list[Future[object]] = []
    with server.connect("cryptostore_test") as connection, connection.transaction():
        connection.execute(SQL("LOCK TABLE {}").format(Identifier(schema, "record")))
        calls += [start(partial(store.get, SyncToken, [()])) for store in stores for _ in range(CALLS)]
        yield
    for call in calls:
        assert result_of(call) == {(): SyncToken("t")}


def opened(backend: Backend, number: int) -> CryptoStore:
    store = own(backend, bot(number))
    store.apply(Changes([SyncToken("t")]))
    return store


def test_bots_in_a_process_each_take_one_and_the_pool_size_at_most(
    server: PostgresServer, schema: str, url: str, taken: Callable[[], int]
) -> None:
    """As for processes with one bot each: a backend shares nothing with another one."""
    with contextlib.ExitStack() as stack:
        backends = [stack.enter_context(open_backend(f"{url}&pool_size={POOL_SIZE}")) for _ in range(BOTS)]
        stores = [opened(backend, number) for number, backend in enumerate(backends)]
        assert taken() == BOTS
        with under_load(server, schema, stores):
            wait_until(lambda: taken() == BOTS * POOL_SIZE)
        assert taken() == BOTS * POOL_SIZE
    wait_until(lambda: taken() == 0)


def test_bots_that_share_a_url_in_one_process_share_its_pool(
    server: PostgresServer, schema: str, url: str, taken: Callable[[], int]
) -> None:
    with open_backend(f"{url}&pool_size=4") as backend:
        stores = [opened(backend, number) for number in range(BOTS)]
        assert taken() == 1
        with under_load(server, schema, stores):
            wait_until(lambda: taken() == 4)
        assert taken() == 4


def test_a_start_waits_for_a_connection_and_says_what_it_waits_for(url: str) -> None:
    quick = url.replace("deadline=60", "deadline=1")
    open_backend(url).close()
    with contextlib.ExitStack() as others:
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                others.enter_context(contextlib.closing(psycopg.connect(url.partition("?")[0])))
        with pytest.raises(BackendUnavailable, match=r"has no free connection: .* or lower pool_size in the URLs"):
            open_backend(quick)
        waiting = start(partial(open_backend, url))
        assert not waiting.done()
        others.close()
        result_of(waiting).close()
