"""What `cryptostore doctor` is told of a PostgreSQL database: each fault, and that it is gone with its remedy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
import pytest
from psycopg.sql import SQL, Identifier, Literal

from cryptostore import Changes, Finding, Level, SyncToken, load_backend, open_backend
from cryptostore.plugins.urls import options_of
from cryptostore_contract.handles import own
from cryptostore_contract.ports import free_port
from cryptostore_contract.proxy import Direction, Proxy
from cryptostore_postgres.diagnosis import CHECKS
from postgres_database import DATABASE, PASSWORD, ROLE, PostgresDatabase
from postgres_server import PASSWORD_ROLE, SUPERUSER, PostgresServer

GUEST: Final = 'guest "of" honour'


@pytest.fixture
def url(breakable_database: PostgresDatabase, schema: str) -> str:
    return breakable_database.url(schema)


@pytest.fixture
def guest(admin: psycopg.Connection, url: str) -> Iterator[str]:
    """The URL of a role that has no rights."""
    name = Identifier(GUEST)
    admin.execute(SQL("CREATE ROLE {} LOGIN").format(name))
    yield url.replace(f"{ROLE}:", "guest%20%22of%22%20honour:")
    admin.execute(SQL("DROP OWNED BY {} CASCADE").format(name))
    admin.execute(SQL("DROP ROLE {}").format(name))


def diagnosed(url: str) -> list[Finding]:
    diagnose = load_backend("postgresql").diagnose
    assert diagnose is not None
    findings = list(diagnose(url, options_of(url, {}), 10.0))
    assert PASSWORD not in repr(findings)
    assert {each.check for each in findings} <= set(CHECKS)
    return findings


def faults(url: str) -> list[Finding]:
    return [each for each in diagnosed(url) if each.level is not Level.OK]


def fault(url: str) -> Finding:
    [found] = faults(url)
    return found


def run_as(role: str, database: PostgresDatabase, commands: tuple[str, ...]) -> None:
    assert database.server is not None
    with psycopg.connect(database.server.url(DATABASE, role), autocommit=True) as connection:
        for command in commands:
            connection.execute(command.encode())


def tables_of(admin: psycopg.Connection, schema: str) -> list[str]:
    rows = admin.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1", [schema])
    return [name for (name,) in rows]


def test_nothing_is_wrong_with_a_database_in_use(url: str) -> None:
    with open_backend(url) as backend:
        own(backend).apply(Changes([SyncToken("t")]))
        findings = diagnosed(url)
    assert [each.check for each in findings if each.level is not Level.OK] == []
    assert sorted(each.check for each in findings) == sorted(CHECKS)
    told = {each.check: each.seen for each in findings}
    assert "takes writes" in told["server"]
    assert repr(DATABASE) in told["database"]
    assert repr(ROLE) in told["role"]
    assert told["connections"].endswith("with pool_size 4, 1 account may need 4")


@pytest.mark.parametrize(
    ("changed", "into", "check", "remedy"),
    [
        (f"/{DATABASE}?", "/gone?", "database", "createdb"),
        (f"{ROLE}:", "nobody:", "role", "create the role"),
        (f"{ROLE}:", f"{PASSWORD_ROLE}:", "role", "check user and password"),
        ("?schema", "?sslmode=require&schema", "TLS", "enable TLS on the server"),
        ("?schema", "?keepalives=perhaps&schema", "server", "check the parameters"),
    ],
)
def test_what_keeps_a_client_from_logging_in(url: str, changed: str, into: str, check: str, remedy: str) -> None:
    found = fault(url.replace(changed, into))
    assert (found.check, found.level, found.prevents_opening) == (check, Level.PROBLEM, True)
    assert remedy in found.remedy


def test_a_server_that_is_away(url: str, server: PostgresServer) -> None:
    found = fault(url.replace(f":{server.port}/", f":{free_port()}/"))
    assert (found.check, found.level, found.prevents_opening) == ("server", Level.PROBLEM, True)
    assert "check that the server runs" in found.remedy


def test_each_other_host_of_the_url_is_asked(url: str, server: PostgresServer) -> None:
    open_backend(url).close()
    found = fault(url.replace(f":{server.port}/", f":{server.port},127.0.0.1:{free_port()}/"))
    assert (found.check, found.level, found.prevents_opening) == ("hosts", Level.WARNING, False)
    assert "no client could fail over to it" in found.seen
    told = {each.check: each for each in diagnosed(url.replace("@", f"@localhost:{server.port},"))}
    assert told["hosts"].level is Level.OK


@contextmanager
def role_setting(admin: psycopg.Connection, name: str, value: str) -> Iterator[None]:
    """The bot's role has another value of a setting."""
    admin.execute(SQL("ALTER ROLE {} SET {} = {}").format(Identifier(ROLE), Identifier(name), Literal(value)))
    try:
        yield
    finally:
        admin.execute(SQL("ALTER ROLE {} RESET {}").format(Identifier(ROLE), Identifier(name)))


def test_a_server_that_takes_no_writes(url: str, admin: psycopg.Connection) -> None:
    open_backend(url).close()
    with role_setting(admin, "default_transaction_read_only", "on"):
        found = fault(url)
    assert (found.check, found.level) == ("server", Level.PROBLEM)
    assert "target_session_attrs=read-write" in found.remedy


def test_a_database_with_another_encoding(url: str, admin: psycopg.Connection) -> None:
    admin.execute("CREATE DATABASE western ENCODING 'LATIN1' TEMPLATE template0")
    try:
        [encoding, *_] = faults(url.replace(f"/{DATABASE}?", "/western?"))
    finally:
        admin.execute("DROP DATABASE western WITH (FORCE)")
    assert (encoding.check, encoding.level) == ("database", Level.PROBLEM)
    assert "LATIN1" in encoding.seen
    assert "--encoding=UTF8" in encoding.remedy


def test_a_superuser_is_more_than_a_client_needs(url: str) -> None:
    open_backend(url).close()
    found = fault(url.replace(f"{ROLE}:", f"{SUPERUSER}:"))
    assert (found.check, found.level) == ("role", Level.WARNING)


def test_a_schema_that_is_absent_stays_so(url: str, admin: psycopg.Connection, schema: str) -> None:
    found = fault(url)
    assert (found.check, found.level, found.prevents_opening) == ("schema", Level.WARNING, True)
    assert "cryptostore migrate" in found.remedy
    assert fault(f"{url}&migrate=never").level is Level.PROBLEM
    assert admin.execute("SELECT FROM pg_namespace WHERE nspname = %s", [schema]).fetchall() == []


@pytest.mark.parametrize("is_there", [False, True], ids=["no schema", "another's schema"])
def test_the_right_to_make_tables(
    guest: str, breakable_database: PostgresDatabase, admin: psycopg.Connection, schema: str, is_there: bool
) -> None:
    if is_there:
        run_as(ROLE, breakable_database, (f"CREATE SCHEMA {schema}",))
    [absent, rights] = faults(guest)
    assert (absent.check, rights.check, rights.level) == ("schema", "rights", Level.PROBLEM)
    assert repr(ROLE) in rights.remedy
    run_as(ROLE if is_there else SUPERUSER, breakable_database, rights.commands)
    assert [each.check for each in faults(guest)] == ["schema"]
    assert tables_of(admin, schema) == []


@pytest.mark.parametrize(
    "given",
    [
        (),
        ("GRANT USAGE ON SCHEMA {schema} TO {guest}",),
        ("GRANT USAGE ON SCHEMA {schema} TO {guest}", "GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {guest}"),
    ],
    ids=["no rights", "the schema", "reading"],
)
def test_the_statements_give_every_right_that_is_missing(
    guest: str, url: str, breakable_database: PostgresDatabase, schema: str, given: tuple[str, ...]
) -> None:
    open_backend(url).close()
    for_clients = f"{guest}&migrate=never"
    quoted = Identifier(GUEST).as_string()
    run_as(ROLE, breakable_database, tuple(each.format(schema=schema, guest=quoted) for each in given))
    found = next(each for each in faults(for_clients) if each.check == "rights")
    assert (found.level, found.remedy) == (Level.PROBLEM, f"let {ROLE!r} or a superuser run")
    assert found.prevents_opening == (len(given) < 2)
    run_as(ROLE, breakable_database, found.commands)
    assert faults(for_clients) == []
    with open_backend(for_clients) as backend:
        store = own(backend)
        store.apply(Changes([SyncToken("t")]))
        store.apply(Changes(deletes=[(SyncToken, ())]))
        backend.delete_account(store.account)


@pytest.mark.parametrize(
    ("version", "compatible", "url_adds", "level"),
    [
        (0, 0, "", Level.WARNING),
        (0, 0, "&migrate=never", Level.PROBLEM),
        (9, 9, "", Level.PROBLEM),
        (9, 1, "", None),
    ],
    ids=["old", "old and not to be migrated", "new", "new and compatible"],
)
def test_the_version_of_the_tables(
    url: str, admin: psycopg.Connection, schema: str, version: int, compatible: int, url_adds: str, level: Level | None
) -> None:
    open_backend(url).close()
    table = Identifier(schema, "schema_version")
    admin.execute(SQL("UPDATE {} SET version = %s, min_compatible = %s").format(table), [version, compatible])
    found = faults(url + url_adds)
    assert [(each.check, each.level, each.prevents_opening) for each in found] == (
        [("schema", level, True)] if level else []
    )
    assert admin.execute(SQL("SELECT version FROM {}").format(table)).fetchall() == [(version,)]


@pytest.mark.parametrize(
    ("spoiling", "seen"),
    [
        ("CREATE SCHEMA {schema}; CREATE TABLE {schema}.record (id int, title text)", "another program"),
        ("DROP TABLE {schema}.schema_version", "another program"),
        ("DROP TABLE {schema}.record", "lacks the table record"),
        ("ALTER TABLE {schema}.record DROP CONSTRAINT record_pkey", "lacks a key of record"),
        ("ALTER TABLE {schema}.ownership ALTER since TYPE text", "another program"),
    ],
)
def test_tables_that_are_not_ours_or_not_whole(
    url: str, admin: psycopg.Connection, schema: str, spoiling: str, seen: str
) -> None:
    if not spoiling.startswith("CREATE"):
        open_backend(url).close()
    admin.execute(spoiling.format(schema=schema).encode())
    before = tables_of(admin, schema)
    found = next(each for each in faults(url) if each.check == "schema")
    assert (found.level, found.prevents_opening) == (Level.PROBLEM, True)
    assert seen in found.seen
    assert "schema=…" in found.remedy or "restore a backup" in found.remedy
    assert tables_of(admin, schema) == before


def test_tables_of_others_are_no_harm(url: str, admin: psycopg.Connection, schema: str) -> None:
    open_backend(url).close()
    admin.execute(SQL("CREATE TABLE {} (id int)").format(Identifier(schema, "notes")))
    assert faults(url) == []


def test_every_reason_to_refuse_tables_is_told_at_once(url: str, admin: psycopg.Connection, schema: str) -> None:
    open_backend(url).close()
    admin.execute(SQL("ALTER TABLE {} SET UNLOGGED").format(Identifier(schema, "record")))
    account = Identifier(schema, "account")
    admin.execute(SQL("ALTER TABLE {} FORCE ROW LEVEL SECURITY").format(account))
    admin.execute(SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(account))
    found = [each for each in faults(url) if each.check == "tables"]
    assert [each.level for each in found] == [Level.PROBLEM] * 2
    told = " ".join(each.seen + each.remedy for each in found)
    assert "SET LOGGED" in told
    assert "DISABLE ROW LEVEL SECURITY" in told


def test_a_stranger_who_owns_tables(url: str, guest: str, admin: psycopg.Connection, schema: str) -> None:
    assert guest
    open_backend(url).close()
    admin.execute(SQL("ALTER TABLE {} OWNER TO {}").format(Identifier(schema, "record"), Identifier(GUEST)))
    found = faults(url)
    assert {each.check: each.level for each in found} == {"tables": Level.PROBLEM, "rights": Level.PROBLEM}
    assert "migrate=never" in found[0].remedy


def test_a_server_that_is_far_away(breakable_database: PostgresDatabase, schema: str) -> None:
    def delay(_number: int, direction: Direction, _chunk: bytes) -> None:
        if direction is Direction.TO_SERVER:
            time.sleep(0.025)

    open_backend(breakable_database.url(schema)).close()
    with Proxy(breakable_database.address, tap=delay) as proxy:
        found = fault(breakable_database.url(schema, proxy.port))
    assert (found.check, found.level) == ("latency", Level.NOTE)
    assert "nearer" in found.remedy


def test_a_role_that_sees_its_own_accounts_alone(
    guest: str, url: str, breakable_database: PostgresDatabase, schema: str
) -> None:
    open_backend(url).close()
    told = {each.check: each.seen for each in diagnosed(url)}
    assert told["tables"].endswith("this role sees every account")
    quoted = Identifier(GUEST).as_string()
    rights = f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {quoted}"
    run_as(ROLE, breakable_database, (f"GRANT USAGE ON SCHEMA {schema} TO {quoted}", rights))
    told = {each.check: each.seen for each in diagnosed(f"{guest}&migrate=never")}
    assert told["tables"].endswith("this role sees its own accounts alone (row security)")


def test_a_server_that_hides_its_statistics(url: str, admin: psycopg.Connection) -> None:
    open_backend(url).close()
    admin.execute("REVOKE SELECT ON pg_catalog.pg_stat_database FROM PUBLIC")
    try:
        found = fault(url)
    finally:
        admin.execute("GRANT SELECT ON pg_catalog.pg_stat_database TO PUBLIC")
    assert (found.check, found.level, found.prevents_opening) == ("server", Level.WARNING, False)
    assert "pg_stat_database" in found.remedy


def test_a_table_that_somebody_has_locked(url: str, admin: psycopg.Connection, schema: str) -> None:
    open_backend(url).close()
    diagnose = load_backend("postgresql").diagnose
    assert diagnose is not None
    with admin.transaction():
        admin.execute(SQL("LOCK TABLE {}").format(Identifier(schema, "schema_version")))
        found = list(diagnose(url, options_of(url, {}), 1.0))[-1]
    assert (found.check, found.level) == ("server", Level.PROBLEM)
    assert "pg_locks" in found.remedy


def test_settings_that_lose_what_was_acknowledged(url: str, server: PostgresServer) -> None:
    open_backend(url).close()
    with server.set_to({"fsync": "off", "full_page_writes": "off"}):
        found = fault(url)
    assert (found.check, found.level) == ("durability", Level.WARNING)
    assert "fsync = off and full_page_writes = off" in found.seen
    assert found.commands == (
        "ALTER SYSTEM SET fsync = on;",
        "ALTER SYSTEM SET full_page_writes = on;",
        "SELECT pg_reload_conf();",
    )
    assert faults(url) == []


def test_commits_that_do_not_wait_are_of_no_account(url: str, admin: psycopg.Connection) -> None:
    open_backend(url).close()
    with role_setting(admin, "synchronous_commit", "off"):
        found = fault(url)
    assert (found.check, found.level) == ("durability", Level.NOTE)
    assert "synchronous_commit = off" in found.seen


@pytest.mark.parametrize("limited", ["role", "database"])
def test_connections_that_do_not_suffice(url: str, admin: psycopg.Connection, limited: str) -> None:
    open_backend(url).close()
    what = (
        SQL("ROLE {}").format(Identifier(ROLE))
        if limited == "role"
        else SQL("DATABASE {}").format(Identifier(DATABASE))
    )
    admin.execute(SQL("ALTER {} CONNECTION LIMIT 6").format(what))
    try:
        assert faults(url) == []
        found = fault(f"{url}&pool_size=7")
    finally:
        admin.execute(SQL("ALTER {} CONNECTION LIMIT -1").format(what))
    assert (found.check, found.level) == ("connections", Level.WARNING)
    assert "this role may have 6" in found.seen
    assert "max_connections" in found.remedy


def test_a_database_that_is_full_of_connections(url: str) -> None:
    found = [each for each in faults(f"{url}&pool_size=98") if each.check == "connections"]
    assert [each.level for each in found] == [Level.WARNING]


def test_encryption_is_told_by_what_the_server_speaks(
    url: str, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not server.speaks_tls:
        pytest.skip("not verified: these binaries were built without TLS")
    with server.only_encrypted() as (trusted, stranger):
        open_backend(f"{url}&sslmode=require").close()
        assert fault(f"{url}&sslmode=disable").check == "role"
        assert fault(f"{url}&sslmode=verify-full&sslrootcert={stranger}").check == "TLS"
        believed = fault(f"{url}&sslmode=require")
        assert (believed.check, believed.level) == ("TLS", Level.WARNING)
        assert "sslmode=verify-full" in believed.remedy
        assert fault(f"{url}&sslmode=verify-ca&sslrootcert={trusted}").level is Level.NOTE
        assert faults(f"{url}&sslmode=verify-full&sslrootcert={trusted}") == []
        monkeypatch.setenv("PGSSLMODE", "verify-full")
        monkeypatch.setenv("PGSSLROOTCERT", str(trusted))
        assert faults(url) == []


def test_options_that_nobody_understands_are_the_cores_to_tell(url: str) -> None:
    with pytest.raises(Exception, match="unknown option 'colour'"):
        diagnosed(f"{url}&colour=red")
