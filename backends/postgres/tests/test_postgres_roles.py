"""Roles as in production: one that makes the tables, and one for each bot that may only use them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final, LiteralString

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from command_line import Run
from cryptostore import (
    KINDS,
    Changes,
    ConfigurationError,
    Mode,
    OlmAccount,
    SchemaTooNew,
    SyncToken,
    TrackedUser,
    new_pickle_key,
    open_backend,
)
from cryptostore.plugins.new_files import write_private
from cryptostore_contract.handles import own
from cryptostore_contract.samples import ALICE, BOB, samples
from cryptostore_postgres.roles import statements
from migrating import migrations_of, opened_with
from postgres_database import DATABASE
from postgres_roles import ALICES, BOBS, OWNER, Roles
from postgres_server import SUPERUSER, PostgresServer

NAME: Final = Identifier(DATABASE)
KEY, NEW_KEY = new_pickle_key(), new_pickle_key()


def rights(admin: psycopg.Connection) -> list[tuple[object, ...]]:
    """Who may do what, in every schema, and who owns it."""
    statements = (
        "SELECT rolname, rolcanlogin, rolsuper, rolbypassrls FROM pg_roles ORDER BY 1",
        "SELECT nspname, nspowner, nspacl::text FROM pg_namespace ORDER BY 1",
        "SELECT relname, relowner, relacl::text FROM pg_class WHERE relkind = 'r' ORDER BY relnamespace, 1",
        "SELECT defaclrole, defaclacl::text FROM pg_default_acl ORDER BY 1",
    )
    return [row for statement in statements for row in admin.execute(statement.encode()).fetchall()]


def test_the_script_changes_nothing_when_it_is_run_again(roles: Roles, admin: psycopg.Connection) -> None:
    """By psql, as its first lines say; the first time was by the same statements."""
    before = rights(admin)
    psql = [str(roles.server.binaries / "psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]
    place = ["--host", str(roles.server.folder), "--port", str(roles.server.port), "--username", SUPERUSER]
    done = subprocess.run(
        [*psql, *place, "--dbname", DATABASE], input=roles.script(), text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert rights(admin) == before


def test_a_bots_role_does_all_the_work_of_a_client_and_of_the_commands(roles: Roles, run: Run, tmp_path: Path) -> None:
    url, copied = roles.url(ALICES), f"sqlite:///{tmp_path}/keys.db"
    write_private(tmp_path / "key", KEY, "a key")
    write_private(tmp_path / "new", NEW_KEY, "a key")
    keys = ["--pickle-key-file", tmp_path / "key"]
    with open_backend(url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        records = [record for kind in KINDS for record in samples(kind, 2)]
        store.apply(Changes(records))
        for kind in KINDS:
            found = store.select(kind, [()])[()]
            assert found == sorted(samples(kind, 2), key=lambda record: record.key)
        store.apply(Changes(deletes=[(type(record), record.key) for record in records]))
        store.apply(Changes([*samples(OlmAccount, 1), SyncToken("s1"), TrackedUser("@bob:example.org")]))
    new_keys = ["--new-pickle-key-file", tmp_path / "new"]
    for words in (
        ["health", url],
        ["accounts", url],
        ["verify", url, *keys],
        ["rekey", url, *keys, *new_keys],
        ["prune", url, "--answered-requests", "--yes", "--pickle-key-file", tmp_path / "new"],
        ["copy", url, copied],
        ["delete", url, "--yes"],
        ["copy", copied, url],
    ):
        ended = run(*words)
        assert ended.code == 0, ended
    with open_backend(url) as backend, backend.open_store(ALICE, Mode.READ, pickle_key=NEW_KEY) as store:
        assert store.get(SyncToken, [()]) == {(): SyncToken("s1")}


#: What changes tables, or gives more rights.
FORBIDDEN: Final[list[LiteralString]] = [
    "CREATE TABLE {schema}.mine ()",
    "DROP TABLE {schema}.record",
    "ALTER TABLE {schema}.record DISABLE ROW LEVEL SECURITY",
    "DROP POLICY own_accounts ON {schema}.record",
    "TRUNCATE {schema}.record",
    "CREATE INDEX ON {schema}.record (value)",
    "INSERT INTO {schema}.schema_version VALUES (9, 9, false)",
    "SET ROLE {owner}",
]


def test_a_bots_role_changes_no_table(roles: Roles) -> None:
    names = {"schema": Identifier(roles.schema), "owner": Identifier(OWNER)}
    with roles.connect(ALICES) as connection:
        for statement in FORBIDDEN:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(SQL(statement).format(**names))


def test_a_bots_role_does_not_keep_the_others_out_by_a_version(roles: Roles) -> None:
    """No other may start beside tables that say that they are newer."""
    table = Identifier(roles.schema, "schema_version")
    with roles.connect(ALICES) as connection:
        for statement in ("UPDATE {} SET version = 9, min_compatible = 9", "DELETE FROM {}"):
            assert connection.execute(SQL(statement).format(table)).rowcount == 0
    open_backend(roles.url(BOBS)).close()


def test_a_bots_role_uses_the_tables_of_a_later_version(roles: Roles, tmp_path: Path) -> None:
    later = "CREATE TABLE {schema}.later (n integer); UPDATE {schema}.schema_version SET version = 2"
    opened_with(migrations_of("cryptostore_postgres", tmp_path / "later", later), roles.url(OWNER)).close()
    with roles.connect(BOBS) as connection:
        table = Identifier(roles.schema, "later")
        for statement in ("INSERT INTO {} VALUES (1)", "UPDATE {} SET n = 2", "DELETE FROM {} WHERE n = 2"):
            assert connection.execute(SQL(statement).format(table)).rowcount == 1
    with open_backend(roles.url(BOBS)) as backend:
        own(backend).apply(Changes([SyncToken("t")]))


def test_a_later_version_without_its_policies_is_refused(roles: Roles, tmp_path: Path) -> None:
    """Each bot would see the rows of all."""
    later = (
        "CREATE TABLE {schema}.anew (LIKE {schema}.record INCLUDING ALL); DROP TABLE {schema}.record;"
        "ALTER TABLE {schema}.anew RENAME TO record"
    )
    opened_with(migrations_of("cryptostore_postgres", tmp_path / "later", later), roles.url(OWNER)).close()
    with pytest.raises(ConfigurationError, match="by other policies than the tables were made with"):
        open_backend(roles.url(BOBS))


def test_tables_that_a_bot_made_become_the_owners_and_its_accounts_stay_its_own(
    server: PostgresServer, admin: psycopg.Connection, schema: str
) -> None:
    roles = Roles(server, schema)
    admin.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(ALICES)))
    admin.execute(SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(Identifier(schema), Identifier(ALICES)))
    try:
        with open_backend(roles.url(ALICES).replace("&migrate=never", "")) as backend:
            own(backend).apply(Changes([SyncToken("t")]))
        roles.make()
        with open_backend(roles.url(ALICES)) as backend:
            assert own(backend).get(SyncToken, [()]) == {(): SyncToken("t")}
        with open_backend(roles.url(BOBS)) as backend:
            assert not backend.accounts()
        with roles.connect(ALICES) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(SQL("CREATE TABLE {} ()").format(Identifier(schema, "mine")))
    finally:
        roles.remove()


def test_one_more_bot_gets_a_role_and_the_others_keep_theirs(roles: Roles, admin: psycopg.Connection) -> None:
    with open_backend(roles.url(ALICES)) as backend:
        own(backend).apply(Changes([SyncToken("t")]))
    new = Identifier("newcomer")
    admin.execute(SQL("; ").join(statements(Identifier(OWNER), [new], roles.schema)))
    try:
        with open_backend(roles.url("newcomer")) as backend:
            assert not backend.accounts()
            own(backend, BOB).apply(Changes([SyncToken("n")]))
            assert list(backend.accounts()) == [BOB]
        with open_backend(roles.url(ALICES)) as backend:
            assert list(backend.accounts()) == [ALICE]
            assert own(backend).get(SyncToken, [()]) == {(): SyncToken("t")}
    finally:
        admin.execute(SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}").format(new))


def test_where_nobody_is_a_superuser_a_role_that_makes_others_is_enough(
    server: PostgresServer, admin: psycopg.Connection, schema: str
) -> None:
    """As on a server that is rented."""
    roles = Roles(server, schema)
    admin.execute(SQL("CREATE ROLE master LOGIN CREATEROLE; GRANT CREATE ON DATABASE {} TO master").format(NAME))
    try:
        roles.make("master")
        open_backend(roles.url(OWNER)).close()
        roles.make("master")
        with open_backend(roles.url(ALICES)) as backend:
            own(backend).apply(Changes([SyncToken("t")]))
        with open_backend(roles.url(BOBS)) as backend:
            assert not backend.accounts()
    finally:
        roles.remove()
        admin.execute("DROP OWNED BY master CASCADE; DROP ROLE master")


def test_newer_tables_are_told_by_a_bots_role_too(roles: Roles, admin: psycopg.Connection) -> None:
    table = Identifier(roles.schema, "schema_version")
    admin.execute(SQL("UPDATE {} SET version = 9, min_compatible = 9").format(table))
    with pytest.raises(SchemaTooNew):
        open_backend(roles.url(ALICES))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--owner", "a", "--bot", "a"], "'a' cannot be both"),
        (["--owner", "", "--bot", "a"], "'' is no name for a role"),
        (["--owner", "a", "--bot", "é" * 32], "1 to 63 bytes"),
        (["--owner", "a", "--bot", "b", "--schema", "Bots"], "plain lower-case name"),
    ],
)
def test_names_that_cannot_be_are_told(run: Run, words: list[str], told: str) -> None:
    ended = run("postgres-roles", *words)
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err
