"""What was released stays as it is, and what it left behind becomes a later schema whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

import postgres_golden
from cryptostore import (
    BackendUnavailable,
    Changes,
    Device,
    EncryptedRoom,
    Ownership,
    SchemaError,
    SchemaTooNew,
    SyncToken,
    open_backend,
)
from cryptostore_contract.children import Child
from cryptostore_contract.golden import GOLDEN
from cryptostore_contract.handles import own
from cryptostore_postgres import migrations
from migrating import assert_golden, migrations_of, opened_with, starting
from patience import wait_until
from postgres_database import PostgresDatabase

_MIGRATIONS: Final = Path(migrations.__file__).parent / "migrations"


class Released(NamedTuple):
    """A migration that is in other people's databases, and the golden database that its program left behind."""

    name: str
    migration: str
    golden: str


#: By schema version; the hashes are SHA-256 of the files. A line is added with each new migration, and never changed.
RELEASED: Final = {
    1: Released(
        "0001_first_tables.sql",
        "816aaf81227e337755a9868804f1c64de5eba73c523fa44d21f4b3577e230e20",
        "c0163bfb1e2694267cb9cb409198d5666d66a2719347702f303af7309ae43b86",
    ),
}

#: Half of the number of a lock that a test holds in order to halt a migration; the other half is the schema's name.
_LOCK: Final = 4_711
_HALT: Final = f"SELECT pg_advisory_xact_lock_shared({_LOCK}, hashtext('{{schema}}'));\n"

#: A schema that only these tests know: it adds, and replaces one table by a copy.
_SECOND: Final = (
    "CREATE TABLE {schema}.migrated (times integer NOT NULL);\n",
    "INSERT INTO {schema}.migrated (times) VALUES (1);\n",
    "ALTER TABLE {schema}.ownership ADD COLUMN seen bigint NOT NULL DEFAULT 0;\n",
    """CREATE TABLE {schema}.record_anew (
        account_id bigint NOT NULL,
        key        pg_catalog.bytea NOT NULL,
        value      pg_catalog.bytea NOT NULL,
        seen       bigint NOT NULL DEFAULT 0,
        PRIMARY KEY (account_id, key)
    );\n""",
    "INSERT INTO {schema}.record_anew SELECT account_id, key, value FROM {schema}.record;\n",
    "DROP TABLE {schema}.record;\n",
    "ALTER TABLE {schema}.record_anew RENAME TO record;\n",
    "UPDATE {schema}.schema_version SET version = 2, min_compatible = 2;\n",
)

#: The statements that a first start makes the tables with.
_FIRST: Final = (_MIGRATIONS / RELEASED[1].name).read_text().split(";")


@pytest.fixture
def schema(postgres_database: PostgresDatabase) -> Iterator[str]:
    """A schema that the program of schema 1 left behind."""
    name = postgres_database.new_schema()
    postgres_golden.load(postgres_database, 1, name)
    yield name
    postgres_database.drop_schema(name)


@pytest.fixture
def url(postgres_database: PostgresDatabase, schema: str) -> str:
    return postgres_database.url(schema)


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """The migrations of a program that knows schema 2, which no program before may touch."""
    return migrations_of("cryptostore_postgres", tmp_path / "second", "".join(_SECOND))


@pytest.fixture
def compatible(tmp_path: Path) -> Path:
    """The same, where a program of schema 1 may go on."""
    text = "".join(_SECOND).replace("min_compatible = 2", "min_compatible = 1")
    return migrations_of("cryptostore_postgres", tmp_path / "compatible", text)


Stored = Callable[[], dict[str, list[tuple[Any, ...]]]]


@pytest.fixture
def stored(postgres_database: PostgresDatabase, schema: str) -> Stored:
    """All that is in the schema: every row of every table, and every definition."""

    def read() -> dict[str, list[tuple[Any, ...]]]:
        with postgres_database.connect() as connection:
            found = contents(connection, schema)
            return found | {"definitions": [(text,) for text in definitions(connection, schema)]}

    return read


def contents(connection: psycopg.Connection, schema: str) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of every table as text, with where each stands in its table's file."""
    tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [schema]).fetchall()
    every_row = SQL("SELECT ctid::text, xmin::text, r::text FROM {} AS r ORDER BY 1")
    return {name: connection.execute(every_row.format(Identifier(schema, name))).fetchall() for (name,) in tables}


def times_migrated(database: PostgresDatabase, schema: str) -> int:
    with database.connect() as connection:
        [(times,)] = connection.execute(SQL("SELECT times FROM {}").format(Identifier(schema, "migrated"))).fetchall()
        return int(times)


def assert_first_schema(url: str) -> None:
    with open_backend(url) as backend:
        assert backend.schema().version == 1
        assert_golden(backend)


def assert_second_schema(folder: Path, url: str) -> None:
    with opened_with(folder, url) as backend:
        assert (backend.schema().version, backend.schema().min_compatible) == (2, 2)
        assert_golden(backend)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_released_migration_is_never_changed() -> None:
    shipped = {path.name: sha256(path) for path in _MIGRATIONS.glob("*.sql")}
    assert shipped == {released.name: released.migration for released in RELEASED.values()}, (
        "a migration that was released is in databases already, and is not run there again: put what is to change into "
        "a new file, and its line and golden database into this test"
    )


def test_every_released_schema_has_its_golden_database() -> None:
    found = {path.name: sha256(path) for path in postgres_golden.FOLDER.iterdir()}
    assert found == {postgres_golden.golden(version).name: released.golden for version, released in RELEASED.items()}, (
        "a golden database is what a released program wrote: tests/support/postgres_golden.py makes it once"
    )


def test_todays_program_leaves_what_the_newest_golden_database_holds(
    postgres_database: PostgresDatabase, schema: str
) -> None:
    made = postgres_database.new_schema()
    postgres_golden.make(postgres_database, made)
    with postgres_database.connect() as connection:
        assert outline(connection, made) == outline(connection, schema)
        assert definitions(connection, made) == definitions(connection, schema)
    postgres_database.drop_schema(made)


def outline(connection: psycopg.Connection, schema: str) -> list[list[tuple[Any, ...]]]:
    """All of a golden database but what is drawn at random: ids, and what is sealed."""
    statements = (
        "SELECT version, min_compatible FROM {0}.schema_version",
        "SELECT user_id, device_id, epoch, incarnation, sequence, owner, since "
        "FROM {0}.account JOIN {0}.ownership ON account_id = id ORDER BY user_id, device_id",
        "SELECT user_id, device_id, key FROM {0}.account JOIN {0}.record ON account_id = id "
        "ORDER BY user_id, device_id, key",
    )
    return [connection.execute(SQL(each).format(Identifier(schema))).fetchall() for each in statements]


def definitions(connection: psycopg.Connection, schema: str) -> list[str]:
    """Every column, constraint, index, policy and setting of a schema's tables, without its name."""
    statements = (
        "SELECT table_name || ' ' || column_name || ' ' || data_type || ' ' || coalesce(collation_name, '') || ' ' "
        "|| is_nullable || ' ' || is_identity || coalesce(column_default, '') "
        "FROM information_schema.columns WHERE table_schema = %s",
        "SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = %s::regnamespace",
        "SELECT indexdef FROM pg_indexes WHERE schemaname = %s",
        "SELECT concat_ws(' ', relname, relrowsecurity, relforcerowsecurity, reloptions) FROM pg_class "
        "WHERE relnamespace = %s::regnamespace",
        "SELECT concat_ws(' ', tablename, policyname, permissive, roles, cmd, qual, with_check) FROM pg_policies "
        "WHERE schemaname = %s",
    )
    found = [text for statement in statements for (text,) in connection.execute(statement, [schema]).fetchall()]
    return sorted(text.replace(schema, "") for text in found)


def test_who_owned_the_accounts_is_kept(url: str) -> None:
    with open_backend(url) as backend:
        owned = Ownership(
            2, postgres_golden.INCARNATION, 3, postgres_golden.OWNER, postgres_golden.SINCE, postgres_golden.SINCE
        )
        assert backend.accounts() == dict.fromkeys(GOLDEN, owned)


def test_a_migration_keeps_every_record(
    postgres_database: PostgresDatabase, schema: str, url: str, second: Path
) -> None:
    for _ in range(2):
        assert_second_schema(second, url)
    assert times_migrated(postgres_database, schema) == 1


@contextmanager
def half_way(database: PostgresDatabase, schema: str, folder: Path, after: int) -> Iterator[Child]:
    """A process that has done so many statements of its migration, and waits for a lock until the block ends."""
    halting = "".join([*_SECOND[:after], _HALT, *_SECOND[after:]])
    halting_folder = migrations_of("cryptostore_postgres", folder, halting)
    with database.connect() as connection, starting(halting_folder, database.url(schema)) as child:
        connection.execute("SELECT pg_advisory_lock(%s, hashtext(%s))", [_LOCK, Identifier(schema).as_string()])
        child.go()
        blocked = "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))"
        wait_until(lambda: connection.execute(blocked).fetchone() == (1,))
        yield child


@pytest.mark.parametrize("after", [1, 4, 6, 8])
def test_a_migration_whose_program_is_killed_half_way_leaves_the_old_schema_whole(
    postgres_database: PostgresDatabase, schema: str, url: str, second: Path, tmp_path: Path, after: int
) -> None:
    with half_way(postgres_database, schema, tmp_path / "halting", after) as child:
        child.kill()
    assert_first_schema(url)
    assert_second_schema(second, url)
    assert times_migrated(postgres_database, schema) == 1


@pytest.mark.parametrize("after", range(1, len(_FIRST) - 1))
def test_a_first_start_that_is_cut_off_leaves_nothing_and_the_next_one_everything(
    breakable_database: PostgresDatabase, tmp_path: Path, after: int
) -> None:
    """As between the table with the version and the others, which would be a schema error for ever."""
    schema = breakable_database.new_schema()
    url = breakable_database.url(schema)
    ending = [*_FIRST[:after], "\nSELECT pg_terminate_backend(pg_backend_pid())", *_FIRST[after:]]
    (tmp_path / "0001_cut_off.sql").write_text(";".join(ending))
    with pytest.raises(BackendUnavailable, match="terminating connection"):
        opened_with(tmp_path, url, deadline=2)
    with breakable_database.connect() as connection:
        assert connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema]).fetchone() is None
    with open_backend(url) as backend:
        own(backend).apply(Changes([SyncToken("t")]))
    breakable_database.drop_schema(schema)


def test_a_migration_whose_server_is_killed_half_way_leaves_the_old_schema_whole(
    breakable_database: PostgresDatabase, second: Path, tmp_path: Path
) -> None:
    assert breakable_database.server is not None
    schema = breakable_database.new_schema()
    url = breakable_database.url(schema)
    postgres_golden.load(breakable_database, 1, schema)
    with half_way(breakable_database, schema, tmp_path / "halting", 6) as child:
        child.kill()
        breakable_database.server.kill()
    breakable_database.server.start()
    assert_first_schema(url)
    assert_second_schema(second, url)
    assert times_migrated(breakable_database, schema) == 1
    breakable_database.drop_schema(schema)


def test_a_migration_that_is_not_done_at_the_deadline_is_undone(
    url: str, second: Path, tmp_path: Path, stored: Stored
) -> None:
    before = stored()
    slow = migrations_of("cryptostore_postgres", tmp_path / "slow", "".join([*_SECOND, "SELECT pg_sleep(600);"]))
    with pytest.raises(BackendUnavailable):
        opened_with(slow, url, deadline=1)
    assert stored() == before
    assert_second_schema(second, url)


@pytest.mark.parametrize("count", [2, 4])
def test_processes_that_start_at_once_migrate_once(
    postgres_database: PostgresDatabase, schema: str, url: str, second: Path, count: int
) -> None:
    with ExitStack() as stack:
        children = [stack.enter_context(starting(second, url)) for _ in range(count)]
        for child in children:
            child.go()
        assert [child.finish()[1:] for child in children] == [["schema 2"]] * count
    assert times_migrated(postgres_database, schema) == 1
    assert_second_schema(second, url)


def test_an_older_program_is_refused_before_anything_is_touched(url: str, second: Path, stored: Stored) -> None:
    opened_with(second, url).close()
    before = stored()
    for _ in range(2):
        with pytest.raises(SchemaTooNew, match=r"version 2, which programs before 2 must not touch; this one knows 1"):
            open_backend(url)
        assert stored() == before
    assert_second_schema(second, url)


def test_an_older_program_goes_on_where_the_newer_one_allows_it(
    postgres_database: PostgresDatabase, schema: str, url: str, compatible: Path
) -> None:
    opened_with(compatible, url).close()
    added = [Device("@new:example.org", "NEW"), EncryptedRoom("!new:example.org"), SyncToken("new")]
    with open_backend(url) as backend:
        assert (backend.schema().version, backend.schema().min_compatible) == (2, 1)
        assert_golden(backend)
        with own(backend) as store:
            store.apply(Changes(added))
    with opened_with(compatible, url) as backend, own(backend) as store:
        assert [store.get(type(record), [record.key])[record.key] for record in added] == added
        store.apply(Changes([SyncToken("last")], [(type(record), record.key) for record in added[:2]]))
    assert times_migrated(postgres_database, schema) == 1


def test_without_migrations_an_older_schema_is_left_alone_and_the_remedy_told(
    postgres_database: PostgresDatabase, schema: str, url: str, second: Path, stored: Stored
) -> None:
    before = stored()
    with pytest.raises(SchemaError) as refused:
        opened_with(second, url, migrate="never")
    assert stored() == before
    assert f"the tables in schema {schema!r}" in str(refused.value)
    assert "have version 1, and this program needs 2" in str(refused.value)
    assert "run `cryptostore migrate` once, or open the database with migrate=auto" in str(refused.value)
    opened_with(second, url, migrate="auto").close()
    with opened_with(second, url, migrate="never") as backend:
        assert_golden(backend)
