"""Locks, waits, statements, and what deletions leave behind."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cryptostore import (
    Account,
    BackendUnavailable,
    Changes,
    CryptoStoreError,
    Mode,
    OlmMessage,
    SyncToken,
    Value,
    open_backend,
)
from cryptostore_sqlite.backend import SQLiteBackend

Execute = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def backend(url: str) -> Iterator[SQLiteBackend]:
    with open_backend(url) as backend:
        assert isinstance(backend, SQLiteBackend)
        yield backend


@contextmanager
def another(path: Path, begin: str) -> Iterator[sqlite3.Connection]:
    """A transaction of another program."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(begin)
        connection.execute("SELECT * FROM account").fetchall()
        yield connection


def statements_of(connection: sqlite3.Connection, call: Callable[[], object]) -> list[str]:
    """The first words of the statements that a call runs on a connection."""
    seen: list[str] = []
    connection.set_trace_callback(seen.append)
    call()
    connection.set_trace_callback(None)
    return [" ".join(statement.split()[:2]) for statement in seen]


@pytest.mark.parametrize("refused", [object(), "a text in a column of bytes"], ids=["by the driver", "by the table"])
def test_a_refused_value_is_neither_an_open_outcome_nor_a_lost_table(
    backend: SQLiteBackend, alice: Account, refused: object
) -> None:
    store = backend.open_store(alice)
    value = Value("n", "refused", b"value")
    object.__setattr__(value, "value", refused)
    with pytest.raises(CryptoStoreError, match="SQLite refused a statement") as caught:
        store.apply(Changes([Value("n", "first", b"value"), value]))
    assert type(caught.value) is CryptoStoreError
    store.apply(Changes([Value("n", "good", b"value")]))
    assert [record.name for record in store.scan(Value)] == ["good"]


def values(count: int) -> list[Value]:
    return [Value("n", f"{number:06}", b"value") for number in range(count)]


def test_every_connection_keeps_what_is_promised(backend: SQLiteBackend) -> None:
    connections = backend._connections
    with connections.reading() as reader, connections.writing(1) as writer:
        for connection in (reader, writer):
            settings = {
                name: connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete", "temp_store", "encoding")
            }
            assert settings == {
                "journal_mode": b"wal",
                "synchronous": 2,
                "foreign_keys": 1,
                "secure_delete": 1,
                "temp_store": 2,
                "encoding": b"UTF-8",
            }
        assert reader.execute("PRAGMA query_only").fetchone() == (1,)


def test_a_batch_is_one_transaction(backend: SQLiteBackend, alice: Account) -> None:
    store = backend.open_store(alice)
    batch = Changes([*values(100), SyncToken("t")], [(Value, ("n", "gone"))])
    seen = statements_of(backend._connections._writer, lambda: store.apply(batch))
    assert (seen[0], seen.count("COMMIT"), seen.count("INSERT INTO")) == ("PRAGMA busy_timeout", 1, 101)
    assert seen[1:3] == ["BEGIN IMMEDIATE", "SELECT epoch,"]
    assert seen[seen.index("COMMIT") - 2 :] == [
        "DELETE FROM",
        "UPDATE account",
        "COMMIT",
        "PRAGMA busy_timeout",
        "PRAGMA wal_checkpoint(TRUNCATE)",
    ]


def test_any_number_of_keys_is_one_statement(backend: SQLiteBackend, alice: Account) -> None:
    store = backend.open_store(alice)
    # More than the parameters that a statement may have by SQLite's own default, 32,766.
    stored = values(40_000)
    store.apply(Changes(stored))
    keys = [value.key for value in stored]
    assert store.get(Value, keys) == {value.key: value for value in stored}
    (reader,) = backend._connections._idle_readers
    assert statements_of(reader, lambda: store.get(Value, keys)) == ["BEGIN", 'SELECT record."namespace",', "COMMIT"]


def test_readers_wait_for_no_writer(backend: SQLiteBackend, path: Path, alice: Account) -> None:
    backend.open_store(alice).apply(Changes([SyncToken("t")]))
    with another(path, "BEGIN IMMEDIATE") as writer, open_backend(f"sqlite:///{path}", deadline=0.2) as later:
        writer.execute("UPDATE sync_token SET token = 'not yet'")
        for reading in (backend, later):
            store = reading.open_store(alice, Mode.READ)
            assert store.get(SyncToken, [()]) == {(): SyncToken("t")}
            assert list(store.scan(SyncToken)) == [SyncToken("t")]
            assert list(reading.accounts()) == [alice]
            assert reading.health().writable


def test_a_writer_waits_for_writers_until_the_deadline(url: str, path: Path, alice: Account) -> None:
    with open_backend(url, deadline=0.3) as backend, backend.open_store(alice) as store:
        attempts: list[Callable[[], object]] = [
            lambda: store.apply(Changes([SyncToken("t")])),
            lambda: backend.open_store(alice),
            lambda: backend.delete_account(alice),
        ]
        with another(path, "BEGIN IMMEDIATE"):
            for attempt in attempts:
                with pytest.raises(BackendUnavailable, match="in use by another program"):
                    attempt()
        assert isinstance(backend, SQLiteBackend)
        with backend._connections.writing(1):
            for attempt in attempts:
                with pytest.raises(BackendUnavailable, match="other threads"):
                    attempt()
        store.apply(Changes([SyncToken("t")]))


def test_opening_waits_for_readers_of_a_database_that_is_not_in_wal_mode(
    url: str, path: Path, execute: Execute
) -> None:
    open_backend(url).close()
    assert execute("PRAGMA journal_mode = DELETE") == [("delete",)]
    with another(path, "BEGIN") as reader:
        with pytest.raises(BackendUnavailable, match="in use by another program"):
            open_backend(url, deadline=0.2)
        with ThreadPoolExecutor() as pool:
            opening = pool.submit(open_backend, url, deadline=60)
            with pytest.raises(TimeoutError):
                opening.result(0.3)
            reader.execute("ROLLBACK")
            opening.result().close()
    assert execute("PRAGMA journal_mode") == [("wal",)]


def test_an_interrupted_batch_leaves_the_writer_free(backend: SQLiteBackend, alice: Account) -> None:
    store = backend.open_store(alice)
    with contextlib.suppress(KeyboardInterrupt), backend._connections.writing(1) as connection:
        connection.execute("DELETE FROM account")
        raise KeyboardInterrupt
    store.apply(Changes([SyncToken("t")]))
    assert store.get(SyncToken, [()]) == {(): SyncToken("t")}


def test_idle_connections_do_not_pile_up(backend: SQLiteBackend) -> None:
    connections = backend._connections
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(connections.reading())
    assert len(connections._idle_readers) == 4


def test_connections_that_are_in_use_are_closed_when_they_come_back(backend: SQLiteBackend, path: Path) -> None:
    with backend._connections.reading() as reader:
        backend.close()
        reader.execute("SELECT * FROM account").fetchall()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        reader.execute("SELECT 1")
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def holds(path: Path, canary: bytes) -> bool:
    """Whether any of the database's files holds some bytes."""
    files = path.parent.glob(f"{path.name}*")
    # In a process of its own: closing the files in this one would drop the locks that SQLite has on them.
    return canary in subprocess.run(["cat", *files], check=True, capture_output=True).stdout


def test_what_a_reader_keeps_from_being_erased_is_erased_by_the_next_write(
    backend: SQLiteBackend, path: Path, alice: Account, caplog: pytest.LogCaptureFixture
) -> None:
    canary = b"canary-7c21" * 30
    store = backend.open_store(alice)
    store.apply(Changes([Value("n", "secret", canary)]))
    with another(path, "BEGIN"):
        store.apply(Changes(deletes=[(Value, ("n", "secret"))]))
        assert holds(path, canary)
    store.apply(Changes([SyncToken("t")]))
    assert not holds(path, canary)
    assert caplog.text == ""


def test_what_a_killed_owner_deleted_is_erased_by_the_next(url: str, path: Path, alice: Account) -> None:
    canary = b"canary-93d0" * 30
    with open_backend(url) as backend:
        backend.open_store(alice).apply(Changes([Value("n", "secret", canary)]))
    script = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("DELETE FROM value")
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    assert holds(path, canary)
    with open_backend(url) as backend:
        backend.open_store(alice)
        assert not holds(path, canary)


def test_erasing_that_fails_fails_no_batch(
    backend: SQLiteBackend, alice: Account, caplog: pytest.LogCaptureFixture
) -> None:
    store = backend.open_store(alice)
    connections = backend._connections

    def refuse(action: int, name: str | None, *_: object) -> int:
        return sqlite3.SQLITE_DENY if name == "wal_checkpoint" else sqlite3.SQLITE_OK

    connections._writer.set_authorizer(refuse)
    with caplog.at_level(logging.WARNING):
        store.apply(Changes([OlmMessage("s", "h")]))
        store.apply(Changes([SyncToken("t")], [(OlmMessage, ("s", "h"))]))
    connections._writer.set_authorizer(None)
    assert "cannot erase" in caplog.text
    assert store.ownership.sequence == 0
    assert backend.accounts()[alice].sequence == 2
