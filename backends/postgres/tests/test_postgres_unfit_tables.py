"""Tables that another program changed, that a restore left incomplete, or that another session has locked."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from cryptostore import BackendUnavailable, Changes, SchemaError, SchemaTooNew, SyncToken, open_backend
from cryptostore_contract.handles import own
from postgres_database import PostgresDatabase


@pytest.fixture
def url(breakable_database: PostgresDatabase, schema: str) -> str:
    return breakable_database.url(schema)


def test_a_newer_schema_is_refused_untouched(url: str, admin: psycopg.Connection, schema: str) -> None:
    open_backend(url).close()
    table = Identifier(schema, "schema_version")
    admin.execute(SQL("UPDATE {} SET version = 7, min_compatible = 6").format(table))
    admin.execute(SQL("DROP TABLE {}").format(Identifier(schema, "record")))
    with pytest.raises(SchemaTooNew, match=r"7.* upgrade"):
        open_backend(url)
    assert admin.execute("SELECT to_regclass(%s)", [f"{schema}.record"]).fetchone() == (None,)


def test_a_newer_schema_that_says_it_is_compatible_is_used(url: str, admin: psycopg.Connection, schema: str) -> None:
    open_backend(url).close()
    admin.execute(SQL("UPDATE {} SET version = 7").format(Identifier(schema, "schema_version")))
    with open_backend(url) as backend:
        assert backend.schema().version == 7
        own(backend).apply(Changes([SyncToken("t")]))


def test_a_table_that_is_gone_is_a_schema_error(url: str, admin: psycopg.Connection, schema: str) -> None:
    with open_backend(url) as backend:
        store = own(backend)
        admin.execute(SQL("DROP TABLE {}").format(Identifier(schema, "record")))
        # Not that it should be opened with migrate=auto: that would begin with empty tables.
        with pytest.raises(SchemaError, match=r"lacks a table, a column or a key .* restore a backup"):
            store.get(SyncToken, [()])
        with pytest.raises(SchemaError, match=r"lacks a table, a column or a key .* restore a backup"):
            store.apply(Changes([SyncToken("t")]))


def test_a_key_that_is_gone_is_a_schema_error(url: str, admin: psycopg.Connection, schema: str) -> None:
    """As after a restore that ended before it made the indexes."""
    with open_backend(url) as backend:
        store = own(backend)
        store.apply(Changes([SyncToken("t")]))
        table = Identifier(schema, "record")
        admin.execute(SQL("ALTER TABLE {} DROP CONSTRAINT record_pkey").format(table))
        with pytest.raises(SchemaError, match=r"lacks a table, a column or a key .* not complete"):
            store.apply(Changes([SyncToken("u")]))
        assert store.get(SyncToken, [()]) == {(): SyncToken("t")}


def test_a_lock_that_another_session_holds_is_told(url: str, admin: psycopg.Connection, schema: str) -> None:
    with open_backend(url, deadline=2) as backend:
        store = own(backend)
        with admin.transaction():
            admin.execute(SQL("LOCK TABLE {}").format(Identifier(schema, "record")))
            with pytest.raises(BackendUnavailable, match="pg_locks"):
                store.get(SyncToken, [()])
        store.apply(Changes([SyncToken("t")]))
