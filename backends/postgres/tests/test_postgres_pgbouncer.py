"""Through PgBouncer in transaction mode, where each transaction may get another session."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, LiteralString

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from cryptostore import (
    KINDS,
    Account,
    Backend,
    BackendUnavailable,
    Changes,
    ConfigurationError,
    FencedOut,
    Level,
    SyncToken,
    Value,
    open_backend,
)
from cryptostore_contract.handles import own
from cryptostore_contract.ports import free_port
from cryptostore_contract.samples import samples
from cryptostore_postgres.database import PostgresDatabase as Database
from cryptostore_postgres.diagnosis import diagnose
from postgres_database import PASSWORD, ROLE, PostgresDatabase
from postgres_roles import ALICES, BOBS, Roles

PGBOUNCER: Final = os.environ.get("CRYPTOSTORE_TEST_PGBOUNCER") or shutil.which("pgbouncer")
PAGE: Final = Path(__file__).parents[3] / "docs" / "postgresql.md"
PATIENCE: Final = 30.0

# The one thing here that no wheel brings.
pytestmark = pytest.mark.skipif(
    PGBOUNCER is None,
    reason="not verified: PgBouncer is not installed, nor named by CRYPTOSTORE_TEST_PGBOUNCER",
)


@pytest.fixture
def pooler_port(breakable_database: PostgresDatabase) -> Iterator[int]:
    with pooler(breakable_database) as port:
        yield port


@contextlib.contextmanager
def pooler(breakable_database: PostgresDatabase, *settings_of_a_test: str) -> Iterator[int]:
    """The port of a PgBouncer in front of the server, with the settings that the page recommends."""
    assert breakable_database.server is not None
    port = free_port()
    # PgBouncer runs as the server's user, who can enter this folder.
    folder = breakable_database.server.folder
    users = folder / "users.txt"
    users.write_text("".join(f'"{role}" "{PASSWORD}"\n' for role in (ROLE, ALICES, BOBS)))
    settings = folder / "pgbouncer.ini"
    recommended = recommended_settings()
    for page, here in {
        "keys = host=db.example.org port=5432": f"* = host=127.0.0.1 port={breakable_database.server.port}",
        "listen_port = 6432": f"listen_port = {port}",
        "/etc/pgbouncer/userlist.txt": str(users),
    }.items():
        assert page in recommended
        recommended = recommended.replace(page, here)
    settings.write_text("\n".join([recommended, "unix_socket_dir =", *settings_of_a_test]))
    wrapper = breakable_database.server.wrapper
    assert PGBOUNCER is not None
    process = subprocess.Popen([*wrapper, PGBOUNCER, str(settings)], stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield port
    finally:
        process.kill()
        process.wait()


def recommended_settings() -> str:
    """Those on the page about PostgreSQL."""
    [settings] = re.findall(r"```ini\n(\[databases\].*?)```", PAGE.read_text(), re.DOTALL)
    return str(settings)


def wait_for(port: int) -> None:
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError("PgBouncer did not start")


@pytest.fixture
def backend(breakable_database: PostgresDatabase, pooler_port: int) -> Iterator[Backend]:
    schema = breakable_database.new_schema()
    with open_backend(f"{breakable_database.url(schema, pooler_port)}&deadline=30") as opened:
        yield opened
    breakable_database.drop_schema(schema)


def test_every_kind_is_written_read_and_deleted(backend: Backend) -> None:
    store = own(backend)
    for kind in KINDS:
        records = sorted(samples(kind, 3), key=lambda record: record.key)
        store.apply(Changes(records))
        assert store.select(kind, [()])[()] == records
        assert list(store.scan(kind)) == records
        store.apply(Changes(deletes=[(kind, record.key) for record in records]))
        assert list(store.scan(kind)) == []


def test_more_writers_than_server_sessions_mix_nothing_up(backend: Backend) -> None:
    accounts = [Account("@alice:example.org", f"DEVICE{number}") for number in range(6)]

    def write(account: Account) -> None:
        store = own(backend, account)
        for number in range(20):
            store.apply(
                Changes([SyncToken(f"{account} {number}"), Value("n", str(number), account.device_id.encode())])
            )

    threads = [threading.Thread(target=write, args=[account]) for account in accounts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for account in accounts:
        store = own(backend, account)
        assert store.ownership.sequence == 20
        assert store.get(SyncToken, [()]) == {(): SyncToken(f"{account} 19")}
        assert {value.value for value in store.scan(Value)} == {account.device_id.encode()}


def test_an_older_owner_is_fenced(backend: Backend) -> None:
    older, newer = own(backend), own(backend)
    with pytest.raises(FencedOut):
        older.apply(Changes([SyncToken("older")]))
    newer.apply(Changes([SyncToken("newer")]))


def test_what_keeps_the_pooler_from_the_server_is_told(breakable_database: PostgresDatabase, schema: str) -> None:
    with pooler(breakable_database, "server_login_retry = 600") as port:
        url = f"{breakable_database.url(schema, port)}&deadline=2"
        with open_backend(url) as backend:
            store = own(backend)
            set_role(breakable_database, "NOLOGIN")
            try:
                breakable_database.end_sessions()
                for call in (lambda: store.get(SyncToken, [()]), lambda: open_backend(url)):
                    with pytest.raises(BackendUnavailable, match=r"server_login_retry.* its log says why"):
                        call()
            finally:
                set_role(breakable_database, "LOGIN")


def test_a_pooler_without_a_free_place_for_a_client_is_told(breakable_database: PostgresDatabase, schema: str) -> None:
    with pooler(breakable_database, "max_client_conn = 1") as port:
        url = breakable_database.url(schema, port)
        with (
            psycopg.connect(url.partition("?")[0]),
            pytest.raises(BackendUnavailable, match=r"\(max_client_conn\).* lower pool_size"),
        ):
            open_backend(f"{url}&deadline=1")


def test_a_pooler_without_a_free_session_of_the_server_is_told(
    breakable_database: PostgresDatabase, schema: str
) -> None:
    with pooler(breakable_database, "default_pool_size = 1", "query_wait_timeout = 1") as port:
        url = breakable_database.url(schema, port)
        with psycopg.connect(url.partition("?")[0]) as holder:
            # A transaction keeps the only session.
            holder.execute("SELECT 1")
            with pytest.raises(BackendUnavailable, match=r"query_wait_timeout.* raise its default_pool_size"):
                open_backend(f"{url}&deadline=6")


def set_role(database: PostgresDatabase, may_log_in: LiteralString) -> None:
    with database.connect() as connection:
        connection.execute(SQL("ALTER ROLE {} {}").format(Identifier(ROLE), SQL(may_log_in)))


def test_rows_that_a_policy_hides_are_an_error_here_too(backend: Backend, breakable_database: PostgresDatabase) -> None:
    store = own(backend)
    store.apply(Changes([SyncToken("t"), Value("n", "1", b"1")]))
    assert isinstance(backend.database, Database)
    table = Identifier(backend.database._options.schema, "record")
    with breakable_database.connect() as connection:
        connection.execute(SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY").format(table))
    for call in (lambda: list(store.scan(Value)), lambda: store.apply(Changes([SyncToken("u")]))):
        with pytest.raises(ConfigurationError, match="DISABLE ROW LEVEL SECURITY"):
            call()


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_the_doctor_tells_the_mode(breakable_database: PostgresDatabase, mode: str) -> None:
    schema = breakable_database.new_schema()
    with pooler(breakable_database, f"pool_mode = {mode}", "default_pool_size = 5") as port:
        url = breakable_database.url(schema, port)
        # Another client's session must not be taken for the doctor's second one.
        with open_backend(url):
            found = {each.check: each for each in diagnose(url, {"schema": schema}, PATIENCE)}
    breakable_database.drop_schema(schema)
    assert f"in {mode} mode" in found["pooler"].seen
    assert found["pooler"].level is Level.NOTE
    assert "the pooler shares them out" in found["connections"].seen


def test_the_doctor_tells_a_pooler_that_has_no_second_session(breakable_database: PostgresDatabase) -> None:
    schema = breakable_database.new_schema()
    settings = ("pool_mode = session", "default_pool_size = 1", "query_wait_timeout = 1")
    with pooler(breakable_database, *settings) as port:
        url = breakable_database.url(schema, port).partition("?")[0]
        found = {each.check: each for each in diagnose(url, {"schema": schema}, PATIENCE)}
    assert found["pooler"].level is Level.WARNING
    assert "default_pool_size" in found["pooler"].remedy


def test_a_restart_of_the_server_behind_it_costs_no_batch(
    breakable_database: PostgresDatabase, backend: Backend
) -> None:
    """Inside the usual deadline: the pooler asks the server again after a second."""
    assert breakable_database.server is not None
    assert "server_login_retry = 1\n" in recommended_settings()
    store = own(backend)
    store.apply(Changes([SyncToken("before")]))
    applied = threading.Thread(target=lambda: store.apply(Changes([SyncToken("meanwhile")])))
    breakable_database.server.kill()
    applied.start()
    breakable_database.server.start()
    applied.join(PATIENCE)
    store.apply(Changes([SyncToken("after")]))
    again = own(backend)
    assert again.ownership.sequence == 3
    assert again.get(SyncToken, [()]) == {(): SyncToken("after")}


def test_each_role_sees_its_own_accounts_also_where_all_share_one_session(
    breakable_database: PostgresDatabase, roles: Roles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    accounts = {role: Account("@bot:example.org", role[:3]) for role in (ALICES, BOBS)}
    with pooler(breakable_database, "max_db_connections = 1") as port, contextlib.ExitStack() as stack:
        backends = {role: stack.enter_context(open_backend(roles.url(role, port))) for role in accounts}
        stores = {role: own(backends[role], account) for role, account in accounts.items()}
        for number in range(3):
            for role, store in stores.items():
                store.apply(Changes([SyncToken(f"{role} {number}")]))
        for role, account in accounts.items():
            assert list(backends[role].accounts()) == [account]
            assert stores[role].get(SyncToken, [()]) == {(): SyncToken(f"{role} 2")}
        with pytest.raises(ConfigurationError, match="belongs to another role"):
            own(backends[ALICES], accounts[BOBS])
