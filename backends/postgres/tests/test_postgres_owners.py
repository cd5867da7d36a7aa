"""Tables that another role owns, and rows that a policy hides: never taken for tables, or accounts, that are new."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from cryptostore import Changes, ConfigurationError, OlmSession, Range, SyncToken, open_backend
from cryptostore_contract.handles import own, read
from cryptostore_contract.samples import samples
from postgres_database import DATABASE, ROLE, PostgresDatabase
from postgres_server import PostgresServer
from raw_databases import TIMEOUT, commit, take_over

GUEST: Final = "guest"
TABLES: Final = ("account", "ownership", "record", "schema_version")


@pytest.fixture(autouse=True)
def guest(admin: psycopg.Connection) -> Iterator[None]:
    """Another role, which may log in and create schemas."""
    admin.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(GUEST)))
    admin.execute(SQL("GRANT CREATE ON DATABASE {} TO {}").format(Identifier(DATABASE), Identifier(GUEST)))
    yield
    admin.execute(SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}").format(Identifier(GUEST)))


@pytest.fixture
def url(breakable_database: PostgresDatabase, schema: str) -> str:
    return breakable_database.url(schema)


@pytest.fixture
def guests_url(server: PostgresServer, schema: str) -> str:
    return f"postgresql://{GUEST}@127.0.0.1:{server.port}/{DATABASE}?schema={schema}"


def hide(admin: psycopg.Connection, schema: str, table: str) -> None:
    """Let the owner see no row of a table. No policy says that one may be seen."""
    statement = SQL("ALTER TABLE {0} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    admin.execute(statement.format(Identifier(schema, table)))


@pytest.mark.parametrize("table", TABLES)
def test_a_table_whose_rows_are_hidden_is_refused(url: str, admin: psycopg.Connection, schema: str, table: str) -> None:
    with open_backend(url) as backend:
        own(backend).apply(Changes([SyncToken("t")]))
    hide(admin, schema, table)
    with pytest.raises(ConfigurationError, match=f"{schema}.{table} .* DISABLE ROW LEVEL SECURITY"):
        open_backend(url)
    admin.execute(SQL("ALTER ROLE {} BYPASSRLS").format(Identifier(ROLE)))
    try:
        with open_backend(url) as backend:
            assert read(backend).get(SyncToken, [()]) == {(): SyncToken("t")}
    finally:
        admin.execute(SQL("ALTER ROLE {} NOBYPASSRLS").format(Identifier(ROLE)))


@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_a_crash_would_empty_is_refused(
    url: str, admin: psycopg.Connection, schema: str, table: str
) -> None:
    open_backend(url).close()
    admin.execute(SQL("ALTER TABLE {} SET UNLOGGED").format(Identifier(schema, table)))
    with pytest.raises(ConfigurationError, match=f"ALTER TABLE {schema}.{table} SET LOGGED") as told:
        open_backend(url)
    admin.execute(str(told.value).partition("run ")[2].encode())
    open_backend(url).close()


@pytest.mark.parametrize("table", ["account", "ownership", "record"])
def test_rows_that_are_hidden_from_a_running_program_are_an_error(
    breakable_database: PostgresDatabase, admin: psycopg.Connection, schema: str, table: str
) -> None:
    database = breakable_database.open(schema)
    row = commit(database, take_over(database), {b"a": b"1", b"b": b"2"})
    hide(admin, schema, table)
    calls: dict[str, list[Callable[[], object]]] = {
        "account": [lambda: database.find(row.user_id, row.device_id, TIMEOUT), lambda: database.accounts(TIMEOUT)],
        "ownership": [lambda: commit(database, row, {b"a": b"3"}), lambda: take_over(database)],
        "record": [
            lambda: database.get(row.id, [b"a"], TIMEOUT),
            lambda: database.get(row.id, [b"a", b"b"], TIMEOUT),
            lambda: database.ranges(row.id, [Range(b"a", None)], TIMEOUT),
            lambda: database.page(row.id, Range(b"a", None), 1, TIMEOUT),
            lambda: commit(database, row, {b"a": b"3"}),
            lambda: commit(database, row, deletes=[b"a"]),
            lambda: database.delete(row.id, TIMEOUT),
        ],
    }
    for call in calls[table]:
        with pytest.raises(ConfigurationError, match=f'"{table}".* DISABLE ROW LEVEL SECURITY'):
            call()
    database.close()


def test_a_schema_that_somebody_else_owns_is_refused_by_the_owners_name(
    url: str, guests_url: str, admin: psycopg.Connection, schema: str
) -> None:
    admin.execute(SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(Identifier(schema), Identifier(GUEST)))
    admin.execute(SQL("GRANT ALL ON SCHEMA {} TO PUBLIC").format(Identifier(schema)))
    with pytest.raises(ConfigurationError, match=f"the schema {schema} .* role '{GUEST}'.* migrate=never"):
        open_backend(url)
    with open_backend(guests_url) as backend:
        own(backend).apply(Changes([SyncToken("t")]))


@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_somebody_else_owns_is_refused_by_the_owners_name(
    url: str, admin: psycopg.Connection, schema: str, table: str
) -> None:
    open_backend(url).close()
    admin.execute(SQL("ALTER TABLE {} OWNER TO {}").format(Identifier(schema, table), Identifier(GUEST)))
    admin.execute(SQL("GRANT ALL ON ALL TABLES IN SCHEMA {} TO PUBLIC").format(Identifier(schema)))
    with pytest.raises(ConfigurationError, match=f"the table {schema}.{table} .* role '{GUEST}'"):
        open_backend(url)
    # Membership is ownership.
    admin.execute(SQL("GRANT {} TO {}").format(Identifier(GUEST), Identifier(ROLE)))
    with open_backend(url) as backend:
        own(backend).apply(Changes([SyncToken("t")]))


def test_nothing_in_a_strangers_schema_is_run(
    url: str, guests_url: str, admin: psycopg.Connection, schema: str
) -> None:
    with psycopg.connect(guests_url.partition("?")[0], autocommit=True) as stranger:
        stranger.execute(
            SQL(
                "CREATE SCHEMA {0}; GRANT ALL ON SCHEMA {0} TO PUBLIC; CREATE SEQUENCE {0}.calls; "
                "CREATE VIEW {0}.schema_version AS SELECT nextval('{0}.calls')::int AS version, 1 AS min_compatible; "
                "GRANT ALL ON {0}.calls, {0}.schema_version TO PUBLIC"
            ).format(SQL(schema))
        )
    with pytest.raises(ConfigurationError, match=GUEST):
        open_backend(url)
    assert admin.execute(SQL("SELECT is_called FROM {}.calls").format(Identifier(schema))).fetchone() == (False,)


@pytest.mark.parametrize("owner", ["postgres", ROLE])
def test_tables_of_a_superuser_and_of_the_databases_owner_are_trusted(
    url: str, guests_url: str, admin: psycopg.Connection, schema: str, owner: str
) -> None:
    open_backend(url).close()
    for table in TABLES:
        admin.execute(SQL("ALTER TABLE {} OWNER TO {}").format(Identifier(schema, table), Identifier(owner)))
    admin.execute(SQL("ALTER SCHEMA {} OWNER TO {}").format(Identifier(schema), Identifier(owner)))
    grant = "GRANT USAGE ON SCHEMA {0} TO {1}; GRANT ALL ON ALL TABLES IN SCHEMA {0} TO {1}"
    admin.execute(SQL(grant).format(Identifier(schema), Identifier(GUEST)))
    with open_backend(guests_url) as backend:
        own(backend).apply(Changes([SyncToken("t")]))


def test_tables_of_a_role_that_migrates_are_used_where_the_url_says_so(
    url: str, guests_url: str, admin: psycopg.Connection, schema: str
) -> None:
    open_backend(guests_url).close()
    grant = "GRANT USAGE ON SCHEMA {0} TO {1}; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {0} TO {1}"
    admin.execute(SQL(grant).format(Identifier(schema), Identifier(ROLE)))
    with open_backend(f"{url}&migrate=never") as backend:
        own(backend).apply(Changes(samples(OlmSession, 3)))
