"""A role a bot: each sees, changes and deletes its own accounts alone, and knows of the others' that they are there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Final, LiteralString

import psycopg
import pytest
from psycopg.sql import SQL, Identifier, Literal

from cryptostore import (
    AccountNotFound,
    AccountRow,
    Changes,
    ConfigurationError,
    Range,
    SyncToken,
    open_backend,
)
from cryptostore_contract.handles import own, read
from cryptostore_contract.samples import ALICE, BOB
from cryptostore_postgres.database import PostgresDatabase as Database
from cryptostore_postgres.database import open_postgres
from postgres_database import DATABASE, ROLE, PostgresDatabase
from postgres_roles import ALICES, BOBS, OWNER, Roles
from raw_databases import TIMEOUT, commit, next_batch, take_over

ROWS: Final = {b"a": b"1", b"b": b"2"}
EVERYTHING: Final = Range(b"", None)


@pytest.fixture
def alices(roles: Roles) -> Iterator[Database]:
    yield from opened(roles, ALICES)


@pytest.fixture
def bobs(roles: Roles) -> Iterator[Database]:
    yield from opened(roles, BOBS)


def opened(roles: Roles, role: str) -> Iterator[Database]:
    options = {"schema": roles.schema, "migrate": "never"}
    database = open_postgres(roles.url(role).partition("?")[0], options, TIMEOUT)
    yield database
    database.close()


@pytest.fixture
def row(alices: Database) -> AccountRow:
    """Alice's account, with two rows."""
    return commit(alices, take_over(alices), ROWS)


def stored(admin: psycopg.Connection, schema: str) -> list[tuple[object, ...]]:
    """Every row of every table, with who wrote it last."""
    tables = [Identifier(schema, name) for name in ("account", "ownership", "record")]
    statement = SQL("SELECT r::text, xmin::text FROM {} AS r ORDER BY 1")
    return [row for table in tables for row in admin.execute(statement.format(table)).fetchall()]


def test_another_bots_account_is_neither_seen_nor_changed(
    roles: Roles, admin: psycopg.Connection, row: AccountRow, bobs: Database
) -> None:
    before = stored(admin, roles.schema)
    assert bobs.accounts(TIMEOUT) == []
    assert bobs.get(row.id, [b"a"], TIMEOUT) == bobs.get(row.id, [b"a", b"b"], TIMEOUT) == []
    assert bobs.ranges(row.id, [EVERYTHING], TIMEOUT) == bobs.page(row.id, EVERYTHING, 9, TIMEOUT) == []
    assert bobs.ranges(row.id, [Range(b"a", b"b"), Range(b"b", b"c")], TIMEOUT) == []
    assert bobs.commit(row.id, next_batch(row, {b"a": b"9"}, [b"b"]), TIMEOUT) is None
    bobs.delete(row.id, TIMEOUT)
    assert stored(admin, roles.schema) == before


#: What a bot may try by hand with another's account, whose id it knows.
PLANTED: Final[list[LiteralString]] = [
    "INSERT INTO {record} VALUES ({id}, 'c', 'planted')",
    "INSERT INTO {record} VALUES ({id}, 'a', 'planted') ON CONFLICT (account_id, key) DO UPDATE SET value = 'x'",
    "INSERT INTO {ownership} VALUES ({id}, 9, 9, 9, 'x', 9)",
    "INSERT INTO {ownership} VALUES (77, 9, 9, 9, 'x', 9)",
    "INSERT INTO {account} VALUES (77, '@x:x', 'X', {role})",
    "UPDATE {account} SET role = {role}",
    "UPDATE {record} SET account_id = {id}",
    "UPDATE {ownership} SET account_id = {id}",
]


def test_nothing_is_put_under_another_bots_account_by_hand(
    roles: Roles, admin: psycopg.Connection, row: AccountRow, bobs: Database
) -> None:
    commit(bobs, take_over(bobs, BOB.user_id, BOB.device_id), {b"a": b"bob's"})
    before = stored(admin, roles.schema)
    names = {name: Identifier(roles.schema, name) for name in ("account", "ownership", "record")}
    with roles.connect(BOBS) as connection:
        for statement in PLANTED:
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
                connection.execute(SQL(statement).format(**names, id=row.id, role=ALICES))
    assert stored(admin, roles.schema) == before


def test_an_account_that_is_another_roles_is_no_new_one(roles: Roles, admin: psycopg.Connection) -> None:
    with open_backend(roles.url(ALICES)) as backend:
        own(backend).apply(Changes([SyncToken("alice's")]))
    before = stored(admin, roles.schema)
    looks: list[object] = []
    with open_backend(roles.url(BOBS)) as backend:
        for call in (
            lambda: own(backend),
            lambda: read(backend),
            lambda: backend.delete_account(ALICE),
            lambda: backend.open_store(ALICE, pickle_key="key", look=looks.append),
        ):
            with pytest.raises(ConfigurationError, match=rf"{ALICE} is in schema .* belongs to another role") as told:
                call()
        assert (looks, backend.accounts()) == ([], {})
        with pytest.raises(AccountNotFound):
            read(backend, BOB)
        assert stored(admin, roles.schema) == before
        # And what the error says makes it Bob's.
        with roles.connect(OWNER) as connection:
            connection.execute(str(told.value).partition("run ")[2].encode())
        assert own(backend).get(SyncToken, [()]) == {(): SyncToken("alice's")}
    with open_backend(roles.url(ALICES)) as backend, pytest.raises(ConfigurationError, match="another role"):
        own(backend)


def test_a_take_over_that_comes_between_is_refused_by_the_server(
    roles: Roles, admin: psycopg.Connection, row: AccountRow, bobs: Database
) -> None:
    """The account may be made after the look at it."""
    before = stored(admin, roles.schema)
    with pytest.raises(ConfigurationError, match="belongs to another role"):
        take_over(bobs)
    assert stored(admin, roles.schema) == before
    assert take_over(bobs, BOB.user_id, BOB.device_id).epoch == 1


def test_a_role_that_may_only_read_finds_no_account_of_another(
    roles: Roles, admin: psycopg.Connection, row: AccountRow, bobs: Database
) -> None:
    """As on a standby, only an attempt to make it would tell."""
    revoke = "REVOKE INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {} FROM {}"
    admin.execute(SQL(revoke).format(Identifier(roles.schema), Identifier(BOBS)))
    assert bobs.find(row.user_id, row.device_id, TIMEOUT) is None
    admin.execute(SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(Identifier(BOBS)))
    bobs.close()
    for again in opened(roles, BOBS):
        assert again.find(row.user_id, row.device_id, TIMEOUT) is None


def test_who_owns_the_tables_sees_every_account(roles: Roles) -> None:
    for role, account in ((ALICES, ALICE), (BOBS, BOB)):
        with open_backend(roles.url(role)) as backend:
            own(backend, account).apply(Changes([SyncToken(role)]))
    with open_backend(roles.url(OWNER)) as backend:
        assert list(backend.accounts()) == [ALICE, BOB]
        assert read(backend, BOB).get(SyncToken, [()]) == {(): SyncToken(BOBS)}
        backend.delete_account(BOB)
    with open_backend(roles.url(BOBS)) as backend:
        assert not backend.accounts()


def test_roles_that_log_in_as_one_share_their_accounts(roles: Roles, admin: psycopg.Connection) -> None:
    """As for a password that is changed without a gap, by two roles in turn."""
    names = Identifier(ALICES), Identifier(BOBS)
    admin.execute(SQL("GRANT {0} TO {1}; ALTER ROLE {1} SET role = {0}").format(*names))
    found: dict[tuple[()], SyncToken] = {}
    for role in (ALICES, BOBS, ALICES):
        with open_backend(roles.url(role)) as backend:
            store = own(backend)
            assert store.get(SyncToken, [()]) == found
            found = {(): SyncToken(role)}
            store.apply(Changes([SyncToken(role)]))
            assert list(backend.accounts()) == [ALICE]
    admin.execute(SQL("UPDATE {} SET role = {}").format(Identifier(roles.schema, "account"), Literal(ROLE)))
    with open_backend(roles.url(BOBS)) as backend, pytest.raises(ConfigurationError, match="another role") as told:
        own(backend)
    # The one that they are here, not the one that logged in.
    assert f"SET role = {Literal(ALICES).as_string()}" in str(told.value)


@pytest.mark.parametrize("holding", [ALICES, BOBS])
def test_half_a_batch_of_a_role_that_logs_in_as_another_does_not_hold_up_the_next_owner(
    roles: Roles, admin: psycopg.Connection, holding: str
) -> None:
    names = Identifier(ALICES), Identifier(BOBS)
    admin.execute(SQL("GRANT {0} TO {1}; ALTER ROLE {1} SET role = {0}").format(*names))
    with open_backend(roles.url(BOBS)) as backend, roles.connect(holding) as holder:
        store = own(backend)
        holder.execute(SQL("BEGIN; UPDATE {} SET sequence = 1").format(Identifier(roles.schema, "ownership")))
        store.apply(Changes([SyncToken("t")]))
        with pytest.raises(psycopg.OperationalError):
            holder.execute("SELECT 1")


#: What may be made of the policies: no rows, all rows, fewer rows or others are seen, or other roles' policies apply.
CHANGES: Final[dict[str, LiteralString]] = {
    "no policy": "DROP POLICY own_accounts ON {record}",
    "all rows": "ALTER POLICY own_accounts ON {record} USING (true)",
    "all rows to write": "ALTER POLICY own_accounts ON {record} WITH CHECK (true)",
    "another name's": "ALTER POLICY own_accounts ON {account} USING (role = user_id)",
    "of nobody": "ALTER POLICY own_accounts ON {ownership} TO postgres",
    "one more": "CREATE POLICY more ON {record} AS RESTRICTIVE USING (key > 'x')",
    "to read alone": "DROP POLICY own_accounts ON {account}; "
    "CREATE POLICY own_accounts ON {account} FOR SELECT USING (role = current_user)",
}


@pytest.mark.parametrize("change", CHANGES)
def test_policies_that_are_not_those_of_the_tables_are_refused_also_by_a_program_that_runs(
    roles: Roles, admin: psycopg.Connection, alices: Database, row: AccountRow, change: str
) -> None:
    names = {name: Identifier(roles.schema, name) for name in ("account", "ownership", "record")}
    admin.execute(SQL(CHANGES[change]).format(**names))
    with pytest.raises(ConfigurationError, match=r"by other policies .* DISABLE ROW LEVEL SECURITY"):
        open_backend(roles.url(ALICES))
    # Who owns the tables can mend them.
    open_backend(roles.url(OWNER)).close()
    calls: list[Callable[[], object]] = [
        lambda: alices.get(row.id, [b"a"], TIMEOUT),
        lambda: alices.ranges(row.id, [EVERYTHING], TIMEOUT),
        lambda: alices.find(row.user_id, row.device_id, TIMEOUT),
        lambda: alices.accounts(TIMEOUT),
        lambda: commit(alices, row, {b"a": b"3"}),
        lambda: alices.delete(row.id, TIMEOUT),
        lambda: take_over(alices),
    ]
    for call in calls:
        with pytest.raises(ConfigurationError, match="hidden rows would count as missing"):
            call()


def test_the_same_policies_made_by_hand_are_accepted(roles: Roles, admin: psycopg.Connection) -> None:
    """What counts is what they say, as another version of the server, or a dump, may write it."""
    statement = (
        "DROP POLICY own_accounts ON {0}; CREATE POLICY by_hand ON {0} FOR ALL TO PUBLIC "
        "USING (account_id = ANY (ARRAY(SELECT (account.id) FROM {1} WHERE ((account.role = current_user)))))"
    )
    admin.execute(SQL(statement).format(Identifier(roles.schema, "record"), Identifier(roles.schema, "account")))
    with open_backend(roles.url(ALICES)) as backend:
        own(backend).apply(Changes([SyncToken("t")]))


def test_without_row_security_every_role_sees_every_account(roles: Roles, admin: psycopg.Connection) -> None:
    for table in ("account", "ownership", "record", "schema_version"):
        admin.execute(SQL("ALTER TABLE {} DISABLE ROW LEVEL SECURITY").format(Identifier(roles.schema, table)))
    with open_backend(roles.url(ALICES)) as backend:
        own(backend).apply(Changes([SyncToken("t")]))
    with open_backend(roles.url(BOBS)) as backend:
        assert own(backend).get(SyncToken, [()]) == {(): SyncToken("t")}


def test_a_dump_as_a_bots_role_holds_its_accounts_alone(
    roles: Roles, breakable_database: PostgresDatabase, admin: psycopg.Connection
) -> None:
    for role, account in ((ALICES, ALICE), (BOBS, BOB)):
        with open_backend(roles.url(role)) as backend:
            own(backend, account).apply(Changes([SyncToken(role)]))
    words = [str(roles.server.binaries / "pg_dump"), "--no-owner", "--no-privileges", f"--schema={roles.schema}"]
    refused = dump(roles, words)
    assert refused.returncode != 0
    assert b"row-level security" in refused.stderr
    dumped = dump(roles, [*words, "--enable-row-security"])
    assert dumped.returncode == 0, dumped.stderr
    admin.execute("CREATE DATABASE restored")
    try:
        psql = [str(roles.server.binaries / "psql"), "-q", "-X", "--set=ON_ERROR_STOP=1", "--dbname"]
        place = f"postgresql://postgres@127.0.0.1:{roles.server.port}/restored"
        subprocess.run([*psql, place], input=dumped.stdout, check=True, capture_output=True)
        with open_backend(f"{place}?schema={roles.schema}") as backend:
            assert list(backend.accounts()) == [BOB]
            assert own(backend, BOB).get(SyncToken, [()]) == {(): SyncToken(BOBS)}
    finally:
        admin.execute("DROP DATABASE restored WITH (FORCE)")


def dump(roles: Roles, words: list[str]) -> subprocess.CompletedProcess[bytes]:
    place = ["--host=127.0.0.1", f"--port={roles.server.port}", f"--username={BOBS}", DATABASE]
    return subprocess.run([*words, *place], capture_output=True, check=False, env=os.environ | {"LC_ALL": "C"})
