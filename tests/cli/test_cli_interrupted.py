"""Commands that are interrupted with ^C while they wait for the database, or for an account to be left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from psycopg.sql import SQL, Identifier

from command_line import interrupted
from cryptostore import Account, Changes, SyncToken, new_pickle_key, open_backend
from postgres_database import PostgresDatabase

ALICE = Account("@alice:example.org", "A")
KEY, NEW = new_pickle_key(), new_pickle_key()
INTERRUPTED = 130


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", KEY)
    monkeypatch.setenv("NEW", NEW)


@pytest.fixture
def postgres_schema(postgres_database: PostgresDatabase) -> Iterator[str]:
    schema = postgres_database.new_schema()
    yield schema
    postgres_database.drop_schema(schema)


def fill(url: str) -> None:
    with open_backend(url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.apply(Changes([SyncToken("s1")]))


def stored_token(url: str) -> str:
    with open_backend(url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        return store.get(SyncToken, [()])[()].token


@contextmanager
def locked(database: PostgresDatabase, schema: str, table: str) -> Iterator[Callable[[int], bool]]:
    """A table that nobody can read; yields what says whether somebody waits for it."""
    waiting = SQL("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = {}::regclass")
    with database.connect() as holder, database.connect() as watcher, holder.transaction():
        holder.execute(SQL("LOCK TABLE {}").format(Identifier(schema, table)))

        def is_waited_for(_process: int) -> bool:
            found = watcher.execute(waiting.format(f"{schema}.{table}")).fetchone()
            return found is not None and found[0] > 0

        yield is_waited_for


@pytest.mark.parametrize(
    ("command", "table"),
    [
        (("accounts",), "record"),
        (("accounts", "--quick"), "account"),
        (("stats", "--json"), "record"),
        (("verify",), "record"),
        (("rekey", "--new-pickle-key-env", "NEW"), "record"),
        (("delete", "--yes"), "record"),
    ],
)
def test_an_interrupt_while_the_database_keeps_it_waiting(
    postgres_database: PostgresDatabase, postgres_schema: str, command: tuple[str, ...], table: str
) -> None:
    url = postgres_database.url(postgres_schema)
    fill(url)
    with locked(postgres_database, postgres_schema, table) as is_at_work:
        ended = interrupted(*command, f"{url}&deadline=60", is_at_work=is_at_work)
    assert ended.code == INTERRUPTED
    assert "Traceback" not in ended.err
    assert ended.out == ""
    assert stored_token(url) == "s1"


def has_open(file: Path) -> Callable[[int], bool]:
    """What says whether a process has the file open."""

    def is_open(process: int) -> bool:
        with suppress(OSError):
            return any(each.resolve() == file for each in Path(f"/proc/{process}/fd").iterdir())
        return False

    return is_open


def test_an_interrupt_of_a_deletion_that_watches_deletes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "keys.db"
    url = f"sqlite:///{file}"
    with open_backend(url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.apply(Changes([SyncToken("s1")]))
        ended = interrupted("delete", url, "--yes", "--watch", "600", is_at_work=has_open(file))
    assert (ended.code, ended.out, ended.err) == (INTERRUPTED, "", "")
    assert stored_token(url) == "s1"
