"""Locks, time limits and the synchronous standby: what a commit must not leave to chance."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from cryptostore import (
    Account,
    BackendUnavailable,
    Changes,
    CryptoStore,
    CryptoStoreError,
    FencedOut,
    OlmSession,
    SyncToken,
    Value,
    open_backend,
)
from cryptostore_contract.proxy import Proxy
from postgres_database import PostgresDatabase

ALICE: Final = Account("@alice:example.org", "DEVICE")
PATIENCE: Final = 60.0


@pytest.fixture
def url(breakable_database: PostgresDatabase, schema: str) -> str:
    return breakable_database.url(schema)


@pytest.fixture
def store(url: str) -> Iterator[CryptoStore]:
    with open_backend(url, deadline=3) as backend:
        yield backend.open_store(ALICE)


@pytest.fixture
def standby_is_gone(admin: psycopg.Connection) -> Iterator[Callable[[], None]]:
    """Commits wait for a synchronous standby that does not exist, until the returned function is called."""

    def set_standby(name: str) -> None:
        admin.execute(SQL("ALTER SYSTEM SET synchronous_standby_names = {}").format(name))
        admin.execute("SELECT pg_reload_conf()")
        wait_until(lambda: admin.execute("SHOW synchronous_standby_names").fetchone() == (name,))
        # The checkpointer is who lets commits wait, or go, and it takes its time.
        admin.execute("CHECKPOINT")

    set_standby("nobody")
    yield lambda: set_standby("")
    set_standby("")


def wait_until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends, "what was waited for did not happen"
        time.sleep(0.02)


def waiting_for_standby(admin: psycopg.Connection) -> bool:
    found = admin.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").fetchone()
    return found is not None and found[0] > 0


def token(url: str) -> str:
    with open_backend(url) as backend:
        return backend.open_store(ALICE).get(SyncToken, [()])[()].token


def test_a_commit_without_its_synchronous_standby_is_not_acknowledged(
    url: str, store: CryptoStore, standby_is_gone: Callable[[], None]
) -> None:
    with pytest.raises(BackendUnavailable):
        store.apply(Changes([SyncToken("t")]))
    standby_is_gone()
    store.apply(Changes([SyncToken("t")]))
    assert token(url) == "t"


@pytest.fixture
def waits_are_cancelled(url: str, store: CryptoStore, standby_is_gone: Callable[[], None]) -> Iterator[None]:
    """Whoever waits for the standby is told to wait no more, which the server calls a success with a warning."""
    stop = threading.Event()

    def cancel() -> None:
        with psycopg.connect(url.partition("?")[0], autocommit=True) as canceller:
            while not stop.wait(0.05):
                canceller.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")

    thread = threading.Thread(target=cancel)
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.mark.usefixtures("waits_are_cancelled")
def test_a_wait_for_the_standby_that_was_cancelled_is_no_success(url: str, store: CryptoStore) -> None:
    # The first attempt commits on the primary alone; at the second the batch is there already. Neither is durable.
    with pytest.raises(BackendUnavailable):
        store.apply(Changes([SyncToken("t")]))
    with psycopg.connect(url.partition("?")[0]) as primary:
        table = Identifier(url.rpartition("=")[2], "account")
        assert primary.execute(SQL("SELECT sequence FROM {}").format(table)).fetchall() == [(1,)]


@pytest.mark.usefixtures("waits_are_cancelled")
def test_taking_over_without_the_standby_is_no_success(url: str) -> None:
    with open_backend(url, deadline=1) as backend, pytest.raises(BackendUnavailable):
        backend.open_store(ALICE)


def large_batch() -> Changes:
    return Changes([Value("large", str(number), bytes(100_000)) for number in range(40)])


@pytest.fixture
def proxy(breakable_database: PostgresDatabase) -> Iterator[Proxy]:
    with Proxy(breakable_database.address) as proxy:
        yield proxy


def fenced_in_the_end(store: CryptoStore) -> FencedOut:
    """What a store is told that was replaced, once its connections work again."""
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        try:
            store.apply(large_batch())
        except BackendUnavailable:
            continue
        except FencedOut as error:
            return error
    raise AssertionError("the store was never fenced")


def test_half_a_batch_at_the_server_does_not_hold_up_the_next_owner(
    breakable_database: PostgresDatabase, schema: str, proxy: Proxy
) -> None:
    with open_backend(breakable_database.url(schema, proxy.port), deadline=2) as cut_off:
        older = cut_off.open_store(ALICE)
        # The server gets the claim and half of the values, and hears nothing more: not even that the client gave up.
        proxy.silence_after(2_000_000)
        with pytest.raises(BackendUnavailable):
            older.apply(large_batch())
        with open_backend(breakable_database.url(schema)) as backend:
            newer = backend.open_store(ALICE)
            assert newer.ownership.epoch == older.ownership.epoch + 1
            newer.apply(large_batch())
        proxy.speak()
        assert fenced_in_the_end(older).outcome_unknown


@pytest.fixture
def holder(url: str, schema: str, store: CryptoStore) -> Iterator[psycopg.Connection]:
    """An earlier attempt at the store's first batch, of which the server has only the beginning."""
    with psycopg.connect(url.partition("?")[0]) as connection:
        claim = SQL("SELECT {}(id, epoch, 1) FROM {}")
        connection.execute(claim.format(Identifier(schema, "claim_batch"), Identifier(schema, "account")))
        yield connection
        connection.close()


def test_half_a_batch_at_the_server_does_not_hold_up_its_second_attempt(
    url: str, store: CryptoStore, holder: psycopg.Connection
) -> None:
    store.apply(Changes([SyncToken("t")]))
    assert token(url) == "t"
    with pytest.raises(psycopg.OperationalError):
        holder.execute("SELECT 1")


def test_a_transaction_at_work_is_waited_for_and_not_ended(store: CryptoStore, holder: psycopg.Connection) -> None:
    working = threading.Thread(target=holder.execute, args=["SELECT pg_sleep(10)"])
    working.start()
    with pytest.raises(BackendUnavailable):
        store.apply(Changes([SyncToken("t")]))
    working.join()
    holder.rollback()
    store.apply(Changes([SyncToken("t")]))


def test_no_setting_makes_a_batch_less_durable_or_is_left_behind(
    breakable_database: PostgresDatabase, admin: psycopg.Connection, schema: str
) -> None:
    with open_backend(breakable_database.url(schema)) as backend:
        backend.open_store(ALICE)
    # Noted inside the transaction, by the server.
    admin.execute(
        SQL(
            "CREATE TABLE {0}.noted (setting text); GRANT ALL ON {0}.noted TO PUBLIC; "
            "CREATE FUNCTION {0}.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "INSERT INTO {0}.noted VALUES (current_setting('synchronous_commit')); RETURN new; END $$; "
            "CREATE TRIGGER note AFTER INSERT OR UPDATE ON {0}.sync_token FOR EACH ROW EXECUTE FUNCTION {0}.note()"
        ).format(Identifier(schema))
    )
    too_weak = ("off", "local", "remote_write")
    for configured in (*too_weak, "on", "remote_apply"):
        options = f"&options=-c%20synchronous_commit%3D{configured}&pool_size=1"
        with open_backend(breakable_database.url(schema) + options) as backend:
            backend.open_store(ALICE).apply(Changes([SyncToken(configured)]))
        noted = SQL("DELETE FROM {}.noted RETURNING setting").format(Identifier(schema))
        assert admin.execute(noted).fetchall() == [("on" if configured in too_weak else configured,)]


def test_the_sessions_time_zone_and_styles_have_no_say(url: str) -> None:
    edges = [
        datetime.min.replace(tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC),
        datetime(2026, 3, 29, 1, 30, tzinfo=UTC) + timedelta(microseconds=1),
        datetime.max.replace(tzinfo=UTC),
    ]
    records = [OlmSession("key", str(number), bytes(range(256)), time, time) for number, time in enumerate(edges)]
    odd = "-c TimeZone=Pacific/Apia -c DateStyle=SQL,DMY -c bytea_output=escape -c extra_float_digits=0"
    with open_backend(url, options=odd) as backend:
        store = backend.open_store(ALICE)
        store.apply(Changes(records))
        assert list(store.scan(OlmSession)) == records


def test_a_refused_row_is_not_quoted(url: str, store: CryptoStore, admin: psycopg.Connection, schema: str) -> None:
    secret = "canary".upper()
    admin.execute(SQL("ALTER TABLE {} ADD more text NOT NULL").format(Identifier(schema, "sync_token")))
    with pytest.raises(CryptoStoreError) as refused:
        store.apply(Changes([SyncToken(secret)]))
    assert "23502" in str(refused.value)
    assert secret not in "".join(traceback.format_exception(refused.value))


def test_a_time_that_no_datetime_can_hold_blocks_nothing(url: str, admin: psycopg.Connection, schema: str) -> None:
    now = datetime.now(UTC)
    records = [OlmSession("key", str(number), b"pickle", now, now) for number in range(4)]
    with open_backend(url) as backend:
        store = backend.open_store(ALICE)
        store.apply(Changes(records))
        table = Identifier(schema, "olm_session")
        for number, odd in [(1, "infinity"), (2, "294000-01-01")]:
            statement = SQL("UPDATE {} SET created_at = %s WHERE session_id = %s").format(table)
            admin.execute(statement, [odd, str(number)])
        assert store.select(OlmSession, [()])[()] == [records[0], records[3]]


def test_an_unreadable_account_hides_no_other(
    url: str, admin: psycopg.Connection, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    table = Identifier(schema, "account")
    with open_backend(url) as backend:
        for number in range(4):
            backend.open_store(Account("@many:example.org", str(number)))
        admin.execute(SQL("UPDATE {} SET since = 'infinity' WHERE device_id = '1'").format(table))
        admin.execute(SQL("UPDATE {} SET user_id = '' WHERE device_id = '2'").format(table))
        assert [account.device_id for account in backend.accounts()] == ["0", "3"]
        assert caplog.messages == [f"skipped an unreadable account ({why})" for why in ("InvalidRecord", "ValueError")]
        # Taking it over mends its time.
        backend.open_store(Account("@many:example.org", "1"))
        assert [account.device_id for account in backend.accounts()] == ["0", "1", "3"]


def test_no_call_outlasts_its_deadline_when_all_pooled_connections_are_dead(
    breakable_database: PostgresDatabase, schema: str
) -> None:
    with Proxy(breakable_database.address) as proxy:
        url = breakable_database.url(schema, proxy.port) + "&pool_size=4&pool_min_size=4&deadline=1"
        with open_backend(url) as backend:
            store = backend.open_store(ALICE)
            store.apply(Changes([SyncToken("t")]))
            with proxy.silent():
                # Each liveness check alone would take two seconds.
                for _ in range(3):
                    started = time.monotonic()
                    with pytest.raises(BackendUnavailable):
                        store.get(SyncToken, [()])
                    assert time.monotonic() - started < PATIENCE
            wait_until(lambda: answers(store))


def answers(store: CryptoStore) -> bool:
    try:
        return store.get(SyncToken, [()]) == {(): SyncToken("t")}
    except BackendUnavailable:
        return False


def run(script: str, *arguments: str) -> str:
    """What a Python process of its own prints."""
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout.strip()


def test_a_forked_process_leaves_its_parents_connections_alone(url: str, admin: psycopg.Connection) -> None:
    script = """
        import os, sys
        from cryptostore import Account, Changes, CryptoStoreError, SyncToken, open_backend

        backend = open_backend(sys.argv[1] + "&deadline=5&application_name=forking")
        store = backend.open_store(Account("@alice:example.org", "DEVICE"))
        if child := os.fork():
            assert os.waitpid(child, 0)[1] == 0
            store.apply(Changes([SyncToken("t")]))
            print(len(backend._connections._pool._pool), backend._connections._pool.get_stats()["connections_num"])
            backend.close()
        else:
            attempts = [lambda: store.apply(Changes([SyncToken("x")])), lambda: store.get(SyncToken, [()])]
            for attempt in [*attempts, backend.accounts]:
                try:
                    attempt()
                except CryptoStoreError as error:
                    print(type(error).__name__, str(error).count("spawn"), flush=True)
            backend.close()
            open_backend(sys.argv[1]).close()
            sys.exit(0)
    """
    # The parent goes on with its first connection: nobody ended its session.
    assert run(script, url).splitlines() == ["StoreClosed 1"] * 3 + ["1 1"]
    assert token(url) == "t"


def test_a_process_without_free_descriptors_is_told_and_recovers(url: str) -> None:
    script = """
        import os, resource, sys, time
        from cryptostore import Account, BackendUnavailable, Changes, SyncToken, open_backend

        def use_connection():
            with backend._connections.guarded(connection, time.monotonic() + 5):
                print("used")

        backend = open_backend(sys.argv[1] + "&deadline=1&pool_size=2&pool_min_size=2")
        store = backend.open_store(Account("@alice:example.org", "DEVICE"))
        connection = backend._connections._pool.getconn()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        apply, get = lambda: store.apply(Changes([SyncToken("t")])), lambda: store.get(SyncToken, [()])
        for attempt in (use_connection, apply, get):
            try:
                attempt()
            except BackendUnavailable:
                print("unavailable")
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        backend._connections._pool.putconn(connection)
        print(store.get(SyncToken, [()]))
        store.apply(Changes([SyncToken("t")]))
        backend.close()
    """
    assert run(script, url).splitlines() == ["unavailable", "unavailable", "unavailable", "{}"]
    assert token(url) == "t"
