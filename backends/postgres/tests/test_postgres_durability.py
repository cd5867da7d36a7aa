"""Locks, time limits and the synchronous standby: what a commit must not leave to chance."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Final

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from cryptostore import (
    Backend,
    BackendUnavailable,
    Changes,
    CryptoStore,
    CryptoStoreError,
    FencedOut,
    Range,
    SyncToken,
    Value,
    open_backend,
)
from cryptostore_contract.handles import own
from cryptostore_contract.proxy import Proxy
from cryptostore_contract.samples import ALICE
from cryptostore_postgres import portions, transactions
from cryptostore_postgres.database import PostgresDatabase as Database
from cryptostore_postgres.pipeline import Statement, run
from patience import PATIENCE, wait_until
from postgres_database import PostgresDatabase
from postgres_roles import ALICES, BOBS, Roles
from raw_databases import TIMEOUT, commit, take_over


@pytest.fixture
def url(breakable_database: PostgresDatabase, schema: str) -> str:
    return breakable_database.url(schema)


@pytest.fixture
def store(url: str, request: pytest.FixtureRequest) -> Iterator[CryptoStore]:
    """A store, with what the test adds to the URL, if anything."""
    with open_backend(url + getattr(request, "param", ""), deadline=3) as backend:
        yield own(backend)


@pytest.fixture
def standby_is_gone(admin: psycopg.Connection) -> Iterator[Callable[[], None]]:
    """Commits wait for a synchronous standby that does not exist, until the returned function is called."""

    def set_standby(name: str) -> None:
        admin.execute(SQL("ALTER SYSTEM SET synchronous_standby_names = {}").format(name))
        admin.execute("SELECT pg_reload_conf()")
        wait_until(lambda: admin.execute("SHOW synchronous_standby_names").fetchone() == (name,))
        # The checkpointer is who lets commits wait, or go. It is told last, perhaps in the middle of the first of
        # these, and does it before it begins the second.
        for _ in range(2):
            admin.execute("CHECKPOINT")

    set_standby("nobody")
    yield lambda: set_standby("")
    set_standby("")


def waiting_for_standby(admin: psycopg.Connection) -> bool:
    found = admin.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").fetchone()
    return found is not None and found[0] > 0


def token(url: str) -> str:
    with open_backend(url) as backend:
        return own(backend).get(SyncToken, [()])[()].token


#: What is told of a commit that waits, and of one that waits for its lock.
STANDBY: Final = "waits for its synchronous standby"


def test_a_commit_without_its_synchronous_standby_is_not_acknowledged(
    url: str, store: CryptoStore, standby_is_gone: Callable[[], None]
) -> None:
    with pytest.raises(BackendUnavailable, match=STANDBY):
        store.apply(Changes([SyncToken("t")]))
    standby_is_gone()
    store.apply(Changes([SyncToken("t")]))
    assert token(url) == "t"


@pytest.mark.usefixtures("store", "standby_is_gone")
@pytest.mark.parametrize("call", [own, lambda backend: backend.delete_account(ALICE)], ids=["take over", "delete"])
def test_what_waits_for_a_synchronous_standby_says_so(url: str, call: Callable[[Backend], object]) -> None:
    with open_backend(url, deadline=2) as backend, pytest.raises(BackendUnavailable, match=STANDBY):
        call(backend)


@pytest.fixture
def acting(roles: Roles, admin: psycopg.Connection) -> str:
    """The URL of a role that logs in as another."""
    names = Identifier(ALICES), Identifier(BOBS)
    admin.execute(SQL("GRANT {0} TO {1}; ALTER ROLE {1} SET role = {0}").format(*names))
    return roles.url(BOBS)


def test_what_waits_for_a_synchronous_standby_says_so_also_to_a_role_that_logs_in_as_another(
    acting: str, standby_is_gone: Callable[[], None]
) -> None:
    for _ in range(2):
        # The first waits for the standby, and the second for the lock of the first.
        with open_backend(acting, deadline=2) as backend, pytest.raises(BackendUnavailable, match=STANDBY):
            own(backend)


@pytest.fixture
def waits_are_cancelled(url: str, store: CryptoStore, standby_is_gone: Callable[[], None]) -> Iterator[None]:
    """The wait for the standby is cancelled, which the server calls a success with a warning."""
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


@pytest.mark.parametrize("store", ["", "&options=-c%20client_min_messages%3Derror"], ids=["", "quiet"], indirect=True)
@pytest.mark.usefixtures("waits_are_cancelled")
def test_a_wait_for_the_standby_that_was_cancelled_is_no_success(url: str, store: CryptoStore) -> None:
    # The first attempt commits on the primary alone; at the second the batch is there already. Neither is durable.
    with pytest.raises(BackendUnavailable):
        store.apply(Changes([SyncToken("t")]))
    with psycopg.connect(url.partition("?")[0]) as primary:
        table = Identifier(url.rpartition("=")[2], "ownership")
        assert primary.execute(SQL("SELECT sequence FROM {}").format(table)).fetchall() == [(1,)]


@pytest.mark.usefixtures("waits_are_cancelled")
def test_taking_over_without_the_standby_is_no_success(url: str) -> None:
    with open_backend(url, deadline=1) as backend, pytest.raises(BackendUnavailable):
        own(backend)


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
    breakable_database: PostgresDatabase, schema: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portions, "_PORTION", 1_000_000)
    with open_backend(breakable_database.url(schema, proxy.port), deadline=2) as cut_off:
        older = own(cut_off)
        # The server stores the first portion, and hears nothing more: not even that the client gave up.
        proxy.silence_after(2_000_000)
        with pytest.raises(BackendUnavailable):
            older.apply(large_batch())
        with open_backend(breakable_database.url(schema)) as backend:
            newer = own(backend)
            assert newer.ownership.epoch == older.ownership.epoch + 1
            newer.apply(large_batch())
        proxy.speak()
        assert fenced_in_the_end(older).outcome_unknown


@pytest.fixture
def holder(url: str, schema: str, store: CryptoStore) -> Iterator[psycopg.Connection]:
    """An earlier attempt at the store's first batch, of which the server has only the beginning."""
    with psycopg.connect(url.partition("?")[0]) as connection:
        connection.execute(SQL("UPDATE {} SET sequence = 1").format(Identifier(schema, "ownership")))
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


def test_no_setting_outlives_its_call(breakable_database: PostgresDatabase, schema: str) -> None:
    database = breakable_database.open(schema)
    names = re.findall(rb"set_config\('(\w+)'", transactions._LIMITS + transactions._BY_INDEX)
    assert len(names) == 8
    shown = Statement(b"SELECT " + b", ".join(b"current_setting('%s')" % name for name in names))

    def settings() -> object:
        with database._connections.use(TIMEOUT) as connection:
            return run(connection, shown)

    before = settings()
    row = commit(database, take_over(database), {b"a": b"1"})
    assert settings() == before
    database.page(row.id, Range(b"", None), 1, TIMEOUT)
    assert settings() == before
    assert len(database._connections._idle) == 1
    database.close()


def test_no_setting_makes_a_batch_less_durable(
    breakable_database: PostgresDatabase, admin: psycopg.Connection, schema: str
) -> None:
    with open_backend(breakable_database.url(schema)) as backend:
        own(backend)
    # Noted inside the transaction, by the server.
    admin.execute(
        SQL(
            "CREATE TABLE {0}.noted (setting text); GRANT ALL ON {0}.noted TO PUBLIC; "
            "CREATE FUNCTION {0}.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "INSERT INTO {0}.noted VALUES (current_setting('synchronous_commit')); RETURN new; END $$; "
            "CREATE TRIGGER note AFTER UPDATE ON {0}.ownership FOR EACH ROW EXECUTE FUNCTION {0}.note()"
        ).format(Identifier(schema))
    )
    too_weak = ("off", "local", "remote_write")
    for configured in (*too_weak, "on", "remote_apply"):
        options = f"&options=-c%20synchronous_commit%3D{configured}&pool_size=1"
        with open_backend(breakable_database.url(schema) + options) as backend:
            row = take_over(backend.database)
            commit(backend.database, row, {b"key": configured.encode()})
        noted = SQL("DELETE FROM {}.noted RETURNING setting").format(Identifier(schema))
        assert admin.execute(noted).fetchall() == [("on" if configured in too_weak else configured,)] * 2


def test_the_sessions_styles_have_no_say(breakable_database: PostgresDatabase, schema: str) -> None:
    odd = "-c bytea_output=escape -c standard_conforming_strings=off -c backslash_quote=off -c TimeZone=Pacific/Apia"
    database = breakable_database.open(schema, options=odd)
    stored = {b"\\x00'": bytes(range(256)), b'{,"}': b"\\x"}
    row = commit(database, take_over(database), stored)
    assert dict(database.get(row.id, sorted(stored), TIMEOUT)) == stored
    database.close()


def test_a_refused_row_is_not_quoted(
    breakable_database: PostgresDatabase, admin: psycopg.Connection, schema: str
) -> None:
    secret = b"canary of a key"
    database = breakable_database.open(schema)
    row = take_over(database)
    admin.execute(SQL("ALTER TABLE {} ADD more text NOT NULL").format(Identifier(schema, "record")))
    with pytest.raises(CryptoStoreError) as refused:
        commit(database, row, {secret: secret})
    assert "23502" in str(refused.value)
    shown = "".join(traceback.format_exception(refused.value))
    assert secret.decode() not in shown
    assert secret.hex() not in shown
    database.close()


def test_no_call_outlasts_its_deadline_when_all_pooled_connections_are_dead(
    breakable_database: PostgresDatabase, schema: str
) -> None:
    with Proxy(breakable_database.address) as proxy:
        url = breakable_database.url(schema, proxy.port) + "&pool_size=4&deadline=1"
        with open_backend(url) as backend:
            store = own(backend)
            store.apply(Changes([SyncToken("t")]))
            opened = backend.database
            assert isinstance(opened, Database)
            with contextlib.ExitStack() as stack:
                for _ in range(4):
                    stack.enter_context(opened._connections.use(TIMEOUT))
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


def output_of(script: str, *arguments: str) -> str:
    """What a Python process of its own prints."""
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout.strip()


def test_a_forked_process_leaves_its_parents_connections_alone(url: str) -> None:
    script = """
        import os, sys
        from cryptostore import Changes, CryptoStoreError, SyncToken, open_backend
        from cryptostore_contract.handles import own

        backend = open_backend(sys.argv[1] + "&deadline=5")
        store = own(backend)
        connections = backend.database._connections
        [before] = connections._idle
        if child := os.fork():
            assert os.waitpid(child, 0)[1] == 0
            store.apply(Changes([SyncToken("t")]))
            print(connections._idle == [before], before.closed)
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
    # The parent goes on with its first connection: its session was not ended.
    assert output_of(script, url).splitlines() == ["StoreClosed 1"] * 3 + ["True False"]
    assert token(url) == "t"


def test_a_process_without_free_descriptors_is_told_and_recovers(url: str) -> None:
    script = """
        import resource, sys
        from cryptostore import BackendUnavailable, open_backend

        backend = open_backend(sys.argv[1] + "&deadline=1")
        connections = backend.database._connections
        [first] = connections._idle
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))

        def attempt():
            try:
                print(backend.health().writable)
            except BackendUnavailable as error:
                print("unavailable", "too many files open" in str(error))

        attempt()
        with connections.use(1):
            # Another connection, which is refused a socket.
            attempt()
        # The first again, whose socket is refused a descriptor to be watched by.
        first._hold.close()
        first._hold = None
        attempt()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        attempt()
        print(connections._idle == [first])
        backend.close()
    """
    assert output_of(script, url).splitlines() == ["True", "unavailable False", "unavailable True", "True", "True"]
