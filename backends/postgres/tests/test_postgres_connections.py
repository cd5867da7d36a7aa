"""The few connections that calls share: when they are asked whether they work, replaced, and waited for."""

from __future__ import annotations

import contextlib
import gc
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import psycopg
import pytest
from psycopg.sql import SQL, Composed, Identifier

from cryptostore import AccountRow, BackendUnavailable, Changes, CryptoStore, SyncToken, open_backend
from cryptostore.store.interface import Connections as Counted
from cryptostore_contract.handles import own, read
from cryptostore_contract.proxy import Proxy
from cryptostore_contract.samples import ALICE
from cryptostore_contract.waiting import result_of, start
from cryptostore_postgres import connections
from cryptostore_postgres.connecting import Connector, arguments
from cryptostore_postgres.connections import Connections
from cryptostore_postgres.database import PostgresDatabase as Database
from cryptostore_postgres.options import parse
from cryptostore_postgres.pipeline import Statement, run
from patience import PATIENCE, wait_until
from postgres_database import DATABASE, ROLE, PostgresDatabase
from postgres_server import PostgresServer
from raw_databases import TIMEOUT, commit, take_over

BATCH: Final = Changes([SyncToken("later")])

#: More than a call could ask whether they work.
MANY: Final = 16

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


def use_together(database: Database, count: int) -> None:
    """Let so many calls be under way at the same time, each on a connection of its own."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(database._connections.use(TIMEOUT))


def make_older(database: Database, seconds: float) -> None:
    """As if the connections had come back so much earlier."""
    for connection in database._connections._idle:
        connection.used_at -= seconds


@pytest.fixture
def proxy(breakable_database: PostgresDatabase) -> Iterator[Proxy]:
    with Proxy(breakable_database.address) as proxy:
        yield proxy


@pytest.fixture
def busy(breakable_database: PostgresDatabase, schema: str, proxy: Proxy) -> Iterator[tuple[Database, AccountRow]]:
    """A database with many connections, none of which is in use any more, and an account in it."""
    database = breakable_database.open(schema, proxy.port, pool_size=MANY)
    row = commit(database, take_over(database), {b"key": b"value"})
    use_together(database, MANY)
    assert proxy.accepted == MANY
    yield database, row
    database.close()


def attempts(database: Database, row: AccountRow) -> int:
    """How many times the core would have to try until the database answers."""
    for number in range(1, MANY):
        with contextlib.suppress(BackendUnavailable):
            assert len(database.get(row.id, [b"key"], PATIENCE)) == 1
            return number
    raise AssertionError("the database does not answer any more")


@pytest.mark.parametrize(("idle", "expected"), [(1.0, 1), (0.0, 2)], ids=["long idle", "just used"])
def test_a_restart_of_the_server_costs_one_connection_however_many_were_idle(
    busy: tuple[Database, AccountRow], server: PostgresServer, proxy: Proxy, idle: float, expected: int
) -> None:
    database, row = busy
    server.stop()
    server.start()
    make_older(database, idle)
    assert attempts(database, row) == expected
    assert proxy.accepted == MANY + 1
    assert len(database._connections._idle) == 1


def test_a_connection_that_just_came_back_is_not_asked_whether_it_works(
    busy: tuple[Database, AccountRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    database, row = busy
    asked: list[bool] = []
    monkeypatch.setattr(psycopg.Connection, "execute", lambda *_: asked.append(True))
    database.get(row.id, [b"key"], TIMEOUT)
    assert asked == []
    make_older(database, 1.0)
    database.get(row.id, [b"key"], TIMEOUT)
    assert asked == [True]


def test_one_connection_serves_calls_that_come_one_after_the_other(busy: tuple[Database, AccountRow]) -> None:
    database, row = busy
    newest = database._connections._idle[-1]
    for _ in range(3):
        database.get(row.id, [b"key"], TIMEOUT)
        assert database._connections._idle[-1] is newest


def test_connections_that_nobody_needs_any_more_are_closed(busy: tuple[Database, AccountRow]) -> None:
    database, row = busy
    make_older(database, connections._IDLE_SECONDS)
    dropped = database._connections._idle[:-1]
    database.get(row.id, [b"key"], TIMEOUT)
    assert len(database._connections._idle) == 1
    assert all(connection.closed for connection in dropped)


def test_a_call_waits_for_a_connection_when_all_are_in_use(
    breakable_database: PostgresDatabase, schema: str, proxy: Proxy
) -> None:
    database = breakable_database.open(schema, proxy.port, pool_size=2)
    entered, leave = threading.Semaphore(0), threading.Event()

    def occupy() -> None:
        with database._connections.use(PATIENCE):
            entered.release()
            leave.wait(PATIENCE)

    occupying = [threading.Thread(target=occupy) for _ in range(2)]
    for thread in occupying:
        thread.start()
    for _ in occupying:
        entered.acquire()
    assert database.connections() == Counted(used=2, idle=0, most=2, waiting=0)
    with pytest.raises(BackendUnavailable, match=r"all 2 connections .* are in use"):
        database.health(0.1)
    waiting = threading.Thread(target=lambda: database.health(PATIENCE))
    waiting.start()
    wait_until(lambda: database.connections().waiting == 1)
    threading.Timer(0.1, leave.set).start()
    assert database.health(PATIENCE).writable
    for thread in [*occupying, waiting]:
        thread.join()
    assert database.connections() == Counted(used=0, idle=2, most=2, waiting=0)
    assert proxy.accepted == 2
    database.close()


def test_a_connection_in_use_is_closed_when_it_comes_back_to_what_was_closed(
    busy: tuple[Database, AccountRow],
) -> None:
    database, _ = busy
    with database._connections.use(TIMEOUT) as connection:
        database.close()
        assert not connection.closed
    assert connection.closed


def test_a_call_under_way_ends_in_its_time_also_in_what_was_closed(
    breakable_database: PostgresDatabase, schema: str, proxy: Proxy
) -> None:
    """A thread that never ends would keep the whole process from its end."""
    database = breakable_database.open(schema, proxy.port)
    with proxy.silent():
        call = start(partial(database.accounts, 1.0))
        wait_until(lambda: database.connections().used == 1)
        database.close()
        with pytest.raises(BackendUnavailable):
            result_of(call)
    watchdog = database._connections._watchdog
    wait_until(lambda: watchdog._thread is None)
    assert database._connections._idle == []


def test_a_login_that_is_refused_later_is_told_and_tried_again(
    breakable_database: PostgresDatabase, schema: str, admin: psycopg.Connection
) -> None:
    role = Identifier(ROLE)
    database = breakable_database.open(schema)
    admin.execute(SQL("ALTER ROLE {} NOLOGIN").format(role))
    try:
        end_other_sessions(admin)
        make_older(database, 1.0)
        with pytest.raises(BackendUnavailable, match="not permitted to log in") as refused:
            database.health(TIMEOUT)
        assert not refused.value.outcome_unknown
    finally:
        admin.execute(SQL("ALTER ROLE {} LOGIN").format(role))
    assert database.health(TIMEOUT).writable
    database.close()


def end_other_sessions(admin: psycopg.Connection) -> None:
    admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid()"
    )


@pytest.mark.parametrize(("begin", "end"), [READ_ONLY, NO_CONNECTIONS], ids=["read-only", "too many connections"])
def test_an_open_store_goes_on_when_the_server_does(
    url: str, admin: psycopg.Connection, begin: Composed, end: Composed
) -> None:
    with open_backend(url) as backend, own(backend) as store:
        store.apply(Changes([SyncToken("before")]))
        before = backend.accounts()[ALICE].sequence
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
        assert token_of(read(backend)) == "later"
        assert backend.accounts()[ALICE].sequence == before + 1


def token_of(store: CryptoStore) -> str:
    return store.get(SyncToken, [()])[()].token


def test_a_handle_that_was_opened_on_a_read_only_server_writes_when_it_may(url: str, admin: psycopg.Connection) -> None:
    open_backend(url).close()
    begin, end = READ_ONLY
    admin.execute(begin)
    try:
        backend = open_backend(url)
        with pytest.raises(BackendUnavailable, match="connect to the primary"):
            own(backend)
    finally:
        admin.execute(end)
    with backend:
        own(backend).apply(BATCH)


def test_a_server_without_a_free_connection_is_told_from_one_that_is_away(url: str, admin: psycopg.Connection) -> None:
    begin, end = NO_CONNECTIONS
    admin.execute(begin)
    try:
        with pytest.raises(BackendUnavailable, match=r"raise max_connections .* or lower pool_size"):
            open_backend(url)
    finally:
        admin.execute(end)


def test_a_connection_is_made_as_poolers_and_several_hosts_need_it() -> None:
    made = arguments(parse("postgresql://bot@db.example.org/keys", {}))
    assert (made["connect_timeout"], made["prepare_threshold"], made["autocommit"]) == (2, None, True)
    made = arguments(parse("postgresql://db.example.org/keys?connect_timeout=7", {"connect_timeout": "7"}))
    assert made["connect_timeout"] == "7"
    assert Connections(parse("postgresql://db.example.org/keys", {"pool_size": "7"}))._size == 7


def test_the_socket_that_is_watched_is_closed_with_its_connection(
    breakable_database: PostgresDatabase, schema: str
) -> None:
    database = breakable_database.open(schema)
    with database._connections.use(TIMEOUT) as connection:
        assert connection.hold.fileno() not in (-1, connection.fileno())
    database.close()
    assert connection.hold.fileno() == -1


def test_an_interrupted_call_leaves_no_connection_that_is_half_way_through(busy: tuple[Database, AccountRow]) -> None:
    database, row = busy
    connections_of = database._connections
    used = connections_of._idle[-1]
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt), connections_of.use(PATIENCE) as connection:
            run(connection, Statement(b"SELECT pg_sleep(60)"))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert connection is used
    assert used.closed
    assert database.get(row.id, [b"key"], TIMEOUT) == [(b"key", b"value")]


def test_a_call_that_is_interrupted_when_its_answer_is_there_leaves_none_either(
    busy: tuple[Database, AccountRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    database, row = busy
    used = database._connections._idle[-1]
    wait = psycopg.Connection.wait

    def interrupted(*arguments: Any) -> None:
        wait(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(psycopg.Connection, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        database.get(row.id, [b"key"], TIMEOUT)
    monkeypatch.undo()
    assert used.closed
    assert database.get(row.id, [b"key"], TIMEOUT) == [(b"key", b"value")]


def test_a_connection_that_the_server_ended_leaves_no_socket_when_it_is_dropped(
    url: str, admin: psycopg.Connection
) -> None:
    connection = Connector(parse(url, {})).connect(time.monotonic() + PATIENCE)
    watched = connection.hold
    admin.execute("SELECT pg_terminate_backend(%s, 10000)", [connection.info.backend_pid])
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    assert connection.closed
    assert watched.fileno() >= 0
    del connection
    gc.collect()
    assert watched.fileno() == -1


def test_what_the_server_said_before_it_ended_the_connection_is_told(url: str, admin: psycopg.Connection) -> None:
    connection = Connector(parse(url, {})).connect(time.monotonic() + PATIENCE)
    admin.execute("SELECT pg_terminate_backend(%s, 10000)", [connection.info.backend_pid])
    with pytest.raises(psycopg.errors.AdminShutdown):
        run(connection, Statement(b"SELECT 1"))
    assert connection.closed
