"""Commands that are interrupted with ^C while they wait for the database, or for an account to be left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from psycopg.sql import SQL, Identifier

from command_line import Run, interrupted
from cryptostore import Account, Changes, InboundGroupSession, SyncToken, new_pickle_key, open_backend
from cryptostore.cli.exits import ExitCode
from example_records import example
from narrow_terminals import ended_on_a_terminal
from postgres_database import PostgresDatabase

ALICE = Account("@alice:example.org", "A")
KEY, NEW = new_pickle_key(), new_pickle_key()
INTERRUPTED = 130
#: What a lock keeps waiting.
READS, WRITES = "ACCESS EXCLUSIVE", "SHARE"
ALICE_S = ("--user-id", ALICE.user_id)
PASS = ("--passphrase-env", "PASSPHRASE")
NOW = ("--yes", "--watch", "0")


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", KEY)
    monkeypatch.setenv("NEW", NEW)
    monkeypatch.setenv("PASSPHRASE", "a passphrase")


@pytest.fixture
def postgres_schema(postgres_database: PostgresDatabase) -> Iterator[str]:
    schema = postgres_database.new_schema()
    yield schema
    postgres_database.drop_schema(schema)


def fill(url: str) -> None:
    with open_backend(url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.apply(Changes([SyncToken("s1"), example(InboundGroupSession, room_id="!1:x")]))


def stored_token(url: str) -> str:
    with open_backend(url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        return store.get(SyncToken, [()])[()].token


@contextmanager
def locked(
    database: PostgresDatabase, schema: str, table: str, mode: str = "ACCESS EXCLUSIVE"
) -> Iterator[Callable[[int], bool]]:
    """A table that nobody can read, or write; yields what says whether somebody waits for it."""
    waiting = SQL("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = {}::regclass")
    with database.connect() as holder, database.connect() as watcher, holder.transaction():
        holder.execute(SQL("LOCK TABLE {} IN {} MODE").format(Identifier(schema, table), SQL(mode)))

        def is_waited_for(_process: int) -> bool:
            found = watcher.execute(waiting.format(f"{schema}.{table}")).fetchone()
            return found is not None and found[0] > 0

        yield is_waited_for


@pytest.mark.parametrize(
    ("command", "table", "mode", "says"),
    [
        (("accounts",), "record", READS, ""),
        (("accounts", "--quick"), "account", READS, ""),
        (("stats", "--json"), "record", READS, ""),
        (("verify",), "record", READS, ""),
        (("health",), "schema_version", READS, ""),
        (("doctor", "--json"), "record", READS, ""),
        (("show", "URL", *ALICE_S), "record", READS, ""),
        (("migrate",), "schema_version", READS, "or up to date already; run the same command again\n"),
        (("backup", "a.backup", "URL", *PASS), "record", READS, "was not made, and nothing was changed: run the same"),
        (
            ("export-keys", "a.keys", "URL", *PASS),
            "record",
            READS,
            "no room keys were exported, and nothing was changed",
        ),
        (("prune", "--room", "!1:x", *NOW), "record", WRITES, "may be deleted, and the rest is whole; run this again"),
        (("rekey", "--new-pickle-key-env", "NEW"), "record", READS, ""),
        (("rekey", "--new-pickle-key-env", "NEW"), "record", WRITES, "keep both, and run this again to complete"),
        (("delete", "--yes", "--watch", "0"), "record", READS, ""),
    ],
)
def test_an_interrupt_while_the_database_keeps_it_waiting(
    postgres_database: PostgresDatabase,
    postgres_schema: str,
    command: tuple[str, ...],
    table: str,
    mode: str,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    url = postgres_database.url(postgres_schema)
    fill(url)
    place = f"{url}&deadline=60"
    words = [place if word == "URL" else word for word in command]
    with locked(postgres_database, postgres_schema, table, mode) as is_at_work:
        ended = interrupted(*words, *[place][: place not in words], is_at_work=is_at_work)
    assert ended.code == INTERRUPTED
    assert says in ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""
    assert stored_token(url) == "s1"
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_of_a_restore(
    run: Run, postgres_database: PostgresDatabase, postgres_schema: str, tmp_path: Path
) -> None:
    source, url = f"sqlite:///{tmp_path}/keys.db", postgres_database.url(postgres_schema)
    open_backend(url).close()
    fill(source)
    assert run("backup", tmp_path / "a.backup", source, *PASS).code == 0
    words = ("restore", tmp_path / "a.backup", f"{url}&deadline=60", *PASS)
    with locked(postgres_database, postgres_schema, "record", WRITES) as is_at_work:
        ended = interrupted(*words, is_at_work=is_at_work)
    assert (ended.code, ended.out) == (INTERRUPTED, "")
    assert ended.err.startswith(f"{ALICE} is not restored. Nothing is lost: run the same command again, which begins")
    assert "Traceback" not in ended.err
    assert run(*words).code == 0
    assert stored_token(url) == "s1"


@pytest.mark.parametrize(
    ("words", "no_answer", "says"),
    [
        (("delete",), ExitCode.CHECK_FAILED, "nothing was deleted"),
        (
            ("verify", "--ask-pickle-key"),
            ExitCode.USAGE,
            "error: no pickle key was typed; type it, or give --pickle-key-file",
        ),
        (
            ("export-keys", "a.keys", "URL", "--ask-passphrase"),
            ExitCode.USAGE,
            "error: no passphrase of the file was typed; type it, or give --passphrase-file",
        ),
    ],
)
def test_an_interrupt_of_a_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], no_answer: int, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path}/keys.db"
    fill(url)
    command = [url if word == "URL" else word for word in words] + [url][: "URL" not in words]
    code, lines = ended_on_a_terminal(200, *command, typed="\x03")
    assert code == INTERRUPTED, lines
    assert not any("error" in line or "Aborted" in line for line in lines)
    code, lines = ended_on_a_terminal(200, *command, typed="\x04")
    assert (code, lines[-1][: len(says)]) == (no_answer, says)
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
