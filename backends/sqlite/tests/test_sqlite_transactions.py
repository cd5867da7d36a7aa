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
    BackendUnavailable,
    Batch,
    ConfigurationError,
    CryptoStoreError,
    Range,
    Row,
    open_backend,
)
from cryptostore_sqlite import connecting
from cryptostore_sqlite.database import SQLiteDatabase
from cryptostore_sqlite.files import beside
from cryptostore_sqlite.plugin import open_sqlite
from raw_databases import TIMEOUT, commit, new_claim, next_batch, take_over

Execute = Callable[..., list[tuple[Any, ...]]]


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
def test_a_refused_value_is_neither_an_open_outcome_nor_a_lost_table(database: SQLiteDatabase, refused: Any) -> None:
    row = take_over(database)
    batch = Batch(row.epoch, row.incarnation, 1, [Row(b"first", b"value"), Row(b"second", refused)], [])
    with pytest.raises(CryptoStoreError, match="SQLite refused a statement") as caught:
        database.commit(row.id, batch, TIMEOUT)
    assert type(caught.value) is CryptoStoreError
    row = commit(database, row, {b"good": b"value"})
    assert database.ranges(row.id, [Range(b"", None)], TIMEOUT) == [Row(b"good", b"value")]


def test_every_connection_keeps_what_is_promised(database: SQLiteDatabase) -> None:
    connections = database._connections
    with connections.reading(TIMEOUT) as reader, connections.writing(TIMEOUT) as writer:
        for connection in (reader, writer):
            settings = {
                name: connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("journal_mode", "synchronous", "secure_delete", "temp_store", "encoding", "busy_timeout")
            }
            assert 0 < settings.pop("busy_timeout") <= TIMEOUT * 1_000
            assert settings == {
                "journal_mode": b"wal",
                "synchronous": 2,
                "secure_delete": 1,
                "temp_store": 2,
                "encoding": b"UTF-8",
            }
        assert reader.execute("PRAGMA query_only").fetchone() == (1,)


def test_a_batch_is_one_transaction(database: SQLiteDatabase) -> None:
    row = take_over(database)
    puts = {b"%03d" % number: b"value" for number in range(100)}
    seen = statements_of(database._connections._writer, lambda: commit(database, row, puts, [b"gone"]))
    assert (seen[0], seen.count("COMMIT"), seen.count("INSERT INTO")) == ("PRAGMA busy_timeout", 1, 100)
    assert seen[1:3] == ["BEGIN IMMEDIATE", "SELECT id,"]
    assert seen[seen.index("COMMIT") - 4 :] == [
        "DELETE FROM",
        "UPDATE ownership",
        "PRAGMA user_version",
        "PRAGMA user_version",
        "COMMIT",
        "PRAGMA busy_timeout",
        "PRAGMA wal_checkpoint(TRUNCATE)",
    ]


def test_readers_wait_for_no_writer(database: SQLiteDatabase, path: Path, url: str) -> None:
    row = commit(database, take_over(database), {b"key": b"value"})
    with another(path, "BEGIN IMMEDIATE") as writer:
        writer.execute("UPDATE record SET value = x'00'")
        later = open_sqlite(url, {}, 0.2)
        for reading in (database, later):
            assert reading.get(row.id, [b"key"], 0.2) == [Row(b"key", b"value")]
            assert reading.page(row.id, Range(b"", None), 1, 0.2) == [Row(b"key", b"value")]
            assert reading.accounts(0.2) == [row]
            assert reading.health(0.2).writable
        later.close()


def test_a_writer_waits_for_writers_until_its_time_is_over(database: SQLiteDatabase, path: Path) -> None:
    row = take_over(database)
    batch = next_batch(row, {b"key": b"value"})
    attempts: list[Callable[[], object]] = [
        lambda: database.commit(row.id, batch, 0.3),
        lambda: database.take_over(row.user_id, row.device_id, new_claim(), 0.3),
        lambda: database.delete(row.id, 0.3),
    ]
    with another(path, "BEGIN IMMEDIATE"):
        for attempt in attempts:
            with pytest.raises(BackendUnavailable, match="in use by another program") as caught:
                attempt()
            assert not caught.value.outcome_unknown
    with database._connections.writing(TIMEOUT):
        for attempt in attempts:
            with pytest.raises(BackendUnavailable, match="other threads") as caught:
                attempt()
            assert not caught.value.outcome_unknown
    assert database.commit(row.id, batch, TIMEOUT) == row._replace(sequence=1)


def test_a_commit_that_failed_leaves_its_outcome_open(database: SQLiteDatabase) -> None:
    row = take_over(database)
    batch = next_batch(row, {b"key": b"value"})
    writer = database._connections._writer

    def interrupt_the_next(statement: str) -> None:
        if statement.startswith("UPDATE ownership"):
            once = iter([True])
            writer.set_progress_handler(lambda: next(once, False), 1)

    writer.set_trace_callback(interrupt_the_next)
    with pytest.raises(BackendUnavailable, match="SQLITE_INTERRUPT") as caught:
        database.commit(row.id, batch, TIMEOUT)
    assert caught.value.outcome_unknown
    writer.set_trace_callback(None)
    writer.set_progress_handler(None, 0)
    assert database.commit(row.id, batch, TIMEOUT) == row._replace(sequence=1)


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


def test_an_interrupted_batch_leaves_the_writer_free(database: SQLiteDatabase) -> None:
    row = take_over(database)
    with contextlib.suppress(KeyboardInterrupt), database._connections.writing(TIMEOUT) as connection:
        connection.execute("DELETE FROM ownership")
        raise KeyboardInterrupt
    commit(database, row, {b"key": b"value"})


def test_idle_connections_do_not_pile_up(database: SQLiteDatabase) -> None:
    connections = database._connections
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(connections.reading(TIMEOUT))
    assert len(connections._idle_readers) == 4


def test_connections_that_are_in_use_are_closed_when_they_come_back(database: SQLiteDatabase, path: Path) -> None:
    with database._connections.reading(TIMEOUT) as reader:
        database.close()
        reader.execute("SELECT * FROM account").fetchall()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        reader.execute("SELECT 1")
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def holds(path: Path, canary: bytes) -> bool:
    """Whether any of the database's files holds some bytes."""
    files = path.parent.glob(f"{path.name}*")
    # In a process of its own: closing the files in this one would drop the locks that SQLite has on them.
    return canary in subprocess.run(["cat", *files], check=True, capture_output=True).stdout


def test_a_deleted_account_is_erased(database: SQLiteDatabase, path: Path) -> None:
    key, value = b"canary-of-a-key", b"canary-of-a-value"
    # The value is on pages of its own.
    row = commit(database, take_over(database), {key: value * 1_000})
    assert holds(path, key)
    assert holds(path, value)
    database.delete(row.id, TIMEOUT)
    for canary in (key, value, row.user_id.encode()):
        assert not holds(path, canary)


def test_what_a_reader_keeps_from_being_erased_is_erased_by_the_next_write(
    database: SQLiteDatabase, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    canary = b"canary-7c21" * 30
    row = commit(database, take_over(database), {b"secret": canary})
    with another(path, "BEGIN"):
        row = commit(database, row, deletes=[b"secret"])
        assert holds(path, canary)
    commit(database, row, {b"key": b"value"})
    assert not holds(path, canary)
    assert caplog.text == ""


def test_what_a_killed_owner_deleted_is_erased_by_the_next(database: SQLiteDatabase, url: str, path: Path) -> None:
    canary = b"canary-93d0" * 30
    commit(database, take_over(database), {b"secret": canary})
    database.close()
    script = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("DELETE FROM record")
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    assert holds(path, canary)
    later = open_sqlite(url, {}, TIMEOUT)
    take_over(later)
    assert not holds(path, canary)
    later.close()


def test_a_long_reader_is_waited_for_once(database: SQLiteDatabase, path: Path) -> None:
    """Such as a program that copies the database all the time."""
    row = take_over(database)
    with another(path, "BEGIN"):
        row = commit(database, row, {b"key": b"value"}, [])
        row = commit(database, row, deletes=[b"key"])
        writer = database._connections._writer
        seen: list[str] = []
        writer.set_trace_callback(seen.append)
        row = commit(database, row, {b"key": b"value"})
        writer.set_trace_callback(None)
        assert seen[-2:] == ["PRAGMA busy_timeout = 0", "PRAGMA wal_checkpoint(TRUNCATE)"]
    commit(database, row, {b"key": b"another"})
    assert beside(path, "-wal").stat().st_size == 0


def test_erasing_that_fails_fails_no_batch(database: SQLiteDatabase, caplog: pytest.LogCaptureFixture) -> None:
    row = commit(database, take_over(database), {b"secret": b"value"})
    writer = database._connections._writer

    def refuse(action: int, name: str | None, *_: object) -> int:
        return sqlite3.SQLITE_DENY if name == "wal_checkpoint" else sqlite3.SQLITE_OK

    writer.set_authorizer(refuse)
    with caplog.at_level(logging.WARNING):
        commit(database, row, deletes=[b"secret"])
    writer.set_authorizer(None)
    assert "cannot empty" in caplog.text
    assert database.find(row.user_id, row.device_id, TIMEOUT) == row._replace(sequence=2)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="not verified: this system does not count descriptors")
def test_failures_leave_nothing_open(url: str, path: Path, database: SQLiteDatabase) -> None:
    row = take_over(database)
    batch = next_batch(row, {b"key": b"value"})
    no_bytes: Any = object()
    text = path.with_name("text.db")
    text.write_text("no database")

    def fail(other: sqlite3.Connection) -> None:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BackendUnavailable):
            database.commit(row.id, batch, 0)
        other.execute("ROLLBACK")
        with pytest.raises(CryptoStoreError, match="refused a statement"):
            database.commit(row.id, batch._replace(puts=[Row(b"key", no_bytes)]), TIMEOUT)
        with pytest.raises(ConfigurationError, match="not a SQLite database"):
            open_backend(f"sqlite:///{text}")

    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        fail(other)
        before = open_descriptors()
        for _ in range(100):
            fail(other)
        assert open_descriptors() == before


def test_a_sqlite_that_does_not_wait_for_the_disk_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "SETTINGS", connecting.SETTINGS.replace("FULL", "NORMAL"))
    with pytest.raises(ConfigurationError, match="does not wait for the disk"):
        open_backend(url)
