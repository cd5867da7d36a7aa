"""What was released stays as it is, and what it left behind becomes a later schema whole or not at all."""

from __future__ import annotations

import functools
import hashlib
import itertools
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

import sqlite_golden
from cryptostore import (
    Account,
    BackendUnavailable,
    Changes,
    Device,
    EncryptedRoom,
    Ownership,
    Schema,
    SchemaTooNew,
    SyncToken,
    open_backend,
)
from cryptostore_contract.golden import GOLDEN
from cryptostore_contract.handles import own
from cryptostore_sqlite import schema
from cryptostore_sqlite.write_ahead_log import Header, header_of
from killed_programs import killed, saved
from migrating import assert_golden, is_killed_at, migrations_of, opened_with, starting

Execute = Callable[..., list[tuple[Any, ...]]]

_MIGRATIONS: Final = Path(schema.__file__).parent / "migrations"


class Released(NamedTuple):
    """A migration that is in other people's databases, and the golden database that its program left behind."""

    name: str
    migration: str
    golden: str


#: By schema version; the hashes are SHA-256 of the files. A line is added with each new migration, and never changed.
RELEASED: Final = {
    1: Released(
        "0001_first_tables.sql",
        "40d58f8cfd2a97d8e113c0fe5db687c88738ff180bd9538d244fb8dc6335925f",
        "0fb6fb3a243755cd190ba95055c6ea0e3be0cae6130ec31f8a3f0004ecffbf35",
    ),
}

#: A schema that only these tests know: it adds, and replaces one table by a copy. The padding is more than
#: SQLite keeps in memory, so that half a migration is in the -wal file.
_SECOND: Final = """
CREATE TABLE migrated (times INTEGER NOT NULL, padding BLOB NOT NULL) STRICT;
INSERT INTO migrated (times, padding) VALUES (1, zeroblob(8000000));
ALTER TABLE ownership ADD COLUMN seen INTEGER NOT NULL DEFAULT 0;
CREATE TABLE record_anew (
    account_id INTEGER NOT NULL,
    key        BLOB    NOT NULL,
    value      BLOB    NOT NULL,
    seen       INTEGER NOT NULL DEFAULT 0,
    UNIQUE (account_id, key)
) STRICT;
INSERT INTO record_anew (account_id, key, value) SELECT account_id, key, value FROM record;
DROP TABLE record;
ALTER TABLE record_anew RENAME TO record;
UPDATE schema_version SET version = 2, min_compatible = {min_compatible};
"""


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """The migrations of a program that knows schema 2, which no program before may touch."""
    return migrations_of("cryptostore_sqlite", tmp_path / "second", _SECOND.format(min_compatible=2))


@pytest.fixture
def compatible(tmp_path: Path) -> Path:
    """The same, where a program of schema 1 may go on."""
    return migrations_of("cryptostore_sqlite", tmp_path / "compatible", _SECOND.format(min_compatible=1))


@pytest.fixture
def filled(path: Path) -> Path:
    """A database that the program of schema 1 left behind."""
    shutil.copyfile(sqlite_golden.golden(1), path).chmod(0o600)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.parent.glob(f"{path.name}*")}


def test_a_released_migration_is_never_changed() -> None:
    shipped = {path.name: sha256(path) for path in _MIGRATIONS.glob("*.sql")}
    assert shipped == {released.name: released.migration for released in RELEASED.values()}, (
        "a migration that was released is in databases already, and is not run there again: put what is to change into "
        "a new file, and its line and golden database into this test"
    )


def test_every_released_schema_has_its_golden_database() -> None:
    found = {path.name: sha256(path) for path in sqlite_golden.FOLDER.iterdir()}
    assert found == {sqlite_golden.golden(version).name: released.golden for version, released in RELEASED.items()}, (
        "a golden database is what a released program wrote: tests/support/sqlite_golden.py makes it once"
    )


def test_todays_program_leaves_what_the_newest_golden_database_holds(tmp_path: Path) -> None:
    sqlite_golden.make(tmp_path / "made.db")
    assert outline(tmp_path / "made.db") == outline(sqlite_golden.golden(max(RELEASED)))


def outline(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All of a golden database but what is drawn at random: ids, and what is sealed."""
    statements = [
        "PRAGMA application_id",
        "SELECT type, name, sql FROM sqlite_schema ORDER BY name",
        "SELECT version, min_compatible FROM schema_version",
        "SELECT user_id, device_id, epoch, incarnation, sequence, owner, since"
        " FROM account JOIN ownership ON account_id = id ORDER BY user_id, device_id",
        "SELECT user_id, device_id, key FROM account JOIN record ON account_id = id ORDER BY user_id, device_id, key",
    ]
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:
        return {statement: connection.execute(statement).fetchall() for statement in statements}


def test_who_owned_the_accounts_is_kept(filled: Path, url: str) -> None:
    with open_backend(url) as backend:
        owned = Ownership(
            2, sqlite_golden.INCARNATION, 3, sqlite_golden.OWNER, sqlite_golden.SINCE, sqlite_golden.SINCE
        )
        assert backend.accounts() == dict.fromkeys(GOLDEN, owned)


def test_a_migration_keeps_every_record(filled: Path, url: str, second: Path, execute: Execute) -> None:
    for _ in range(2):
        with opened_with(second, url) as backend:
            assert (backend.schema().version, backend.schema().min_compatible) == (2, 2)
            assert_golden(backend)
    assert execute("SELECT times FROM migrated") == [(1,)]


def test_a_migration_that_is_killed_at_any_statement_leaves_the_old_schema_whole(
    path: Path, url: str, second: Path, execute: Execute
) -> None:
    for statement in itertools.count(1):
        for file in files_of(path):
            path.with_name(file).unlink()
        shutil.copyfile(sqlite_golden.golden(1), path).chmod(0o600)
        killed = is_killed_at(second, url, statement)
        if killed:
            with open_backend(url) as backend:
                assert backend.schema().version == 1
                assert_golden(backend)
        with opened_with(second, url) as backend:
            assert backend.schema().version == 2
            assert_golden(backend)
        assert execute("SELECT times FROM migrated") == [(1,)]
        if not killed:
            break
    # At the COMMIT of what is counted first, at BEGIN, at each statement of the migration, and at COMMIT.
    assert statement - 1 == _SECOND.count(";\n") + 3


def test_a_first_start_waits_for_anothers_look(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Watched(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if "sqlite_schema" in sql:
                monkeypatch.undo()
                with pytest.raises(BackendUnavailable, match="in use"):
                    open_backend(url, deadline=0.1)
            return super().execute(sql, *parameters)

    monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=Watched))
    with open_backend(url) as backend:
        assert backend.schema() == Schema(version=1, min_compatible=1)


def test_a_first_start_that_is_killed_at_any_statement_is_begun_again(path: Path, url: str, tmp_path: Path) -> None:
    first = migrations_of("cryptostore_sqlite", tmp_path / "first")
    for statement in itertools.count(1):
        killed = is_killed_at(first, url, statement)
        with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as alone:
            # Not in the -wal, so a copy of the file is a new database or a whole one.
            (tables,) = alone.execute("SELECT count(*) FROM sqlite_schema WHERE type = 'table'").fetchone()
        open_backend(url).close()
        for file in files_of(path):
            path.with_name(file).unlink()
        assert tables == (0 if killed else 4)
        if not killed:
            break
    assert statement > 8


@pytest.mark.parametrize("count", [2, 4])
def test_processes_that_start_at_once_migrate_once(
    filled: Path, url: str, second: Path, execute: Execute, count: int
) -> None:
    with ExitStack() as stack:
        children = [stack.enter_context(starting(second, url)) for _ in range(count)]
        for child in children:
            child.go()
        assert [child.finish()[1:] for child in children] == [["schema 2"]] * count
    assert execute("SELECT times FROM migrated") == [(1,)]
    with opened_with(second, url) as backend:
        assert_golden(backend)


def test_a_migration_by_another_program_amid_the_look_is_no_strange_log(
    path: Path, url: str, compatible: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(url, 20)

    def after_a_migration(connection: sqlite3.Connection) -> Header:
        monkeypatch.undo()
        opened_with(compatible, url).close()
        return header_of(connection)

    monkeypatch.setattr("cryptostore_sqlite.opening.header_of", after_a_migration)
    with open_backend(url) as backend:
        assert backend.schema().version == 2
    assert saved(url) == 20


def test_an_older_program_is_refused_before_anything_is_touched(filled: Path, url: str, second: Path) -> None:
    opened_with(second, url).close()
    before = files_of(filled)
    for _ in range(2):
        with pytest.raises(SchemaTooNew, match="version 2, which programs before 2 must not touch; this one knows 1"):
            open_backend(url)
        assert files_of(filled) == before
    with opened_with(second, url) as backend:
        assert_golden(backend)


def test_an_older_program_goes_on_where_the_newer_one_allows_it(
    filled: Path, url: str, compatible: Path, execute: Execute, alice: Account
) -> None:
    opened_with(compatible, url).close()
    added = [Device("@new:example.org", "NEW"), EncryptedRoom("!new:example.org"), SyncToken("new")]
    with open_backend(url) as backend:
        assert (backend.schema().version, backend.schema().min_compatible) == (2, 1)
        assert_golden(backend)
        with own(backend, alice) as store:
            store.apply(Changes(added))
    with opened_with(compatible, url) as backend, own(backend, alice) as store:
        assert [store.get(type(record), [record.key])[record.key] for record in added] == added
        (token,) = [record for record in GOLDEN[alice] if isinstance(record, SyncToken)]
        store.apply(Changes([token], [(type(record), record.key) for record in added[:2]]))
        assert_golden(backend)
    assert execute("SELECT times FROM migrated") == [(1,)]
