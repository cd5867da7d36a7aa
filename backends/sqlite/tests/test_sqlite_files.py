"""The files: private, durable, in place, and not another program's."""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from nio.store import SqliteStore

from cryptostore import (
    BackendUnavailable,
    ConfigurationError,
    Range,
    Row,
    SchemaError,
    SchemaTooNew,
    StorageFull,
    open_backend,
)
from cryptostore_sqlite.database import SQLiteDatabase
from cryptostore_sqlite.plugin import open_sqlite
from left_alone import contents
from raw_databases import TIMEOUT, commit, new_claim, next_batch, take_over

Execute = Callable[..., list[tuple[Any, ...]]]

#: Watches the modes of all files in a folder, without a umask to help, while a database lives there.
_WATCH = """
    import os, sys, threading
    from cryptostore import Account, Changes, SyncToken, new_pickle_key, open_backend

    folder = sys.argv[1]
    seen, done = set(), threading.Event()

    def watch():
        while not done.is_set():
            for entry in os.scandir(folder):
                try:
                    seen.add((entry.name, oct(entry.stat().st_mode & 0o7777)))
                except FileNotFoundError:
                    pass

    os.umask(0)
    watcher = threading.Thread(target=watch)
    watcher.start()
    account = Account("@a:b", "D")
    for round in range(30):
        with open_backend(f"sqlite:///{folder}/{round % 3}.db") as backend:
            with backend.open_store(account, pickle_key=new_pickle_key()) as store:
                store.apply(Changes([SyncToken("t")]))
                store.apply(Changes(deletes=[(SyncToken, ())]))
            backend.delete_account(account)
    done.set()
    watcher.join()
    assert os.umask(0) == 0
    assert {"0.db", "0.db-wal", "0.db-shm"} <= {name for name, _ in seen}
    print(*{mode for _, mode in seen})
"""


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_every_file_is_private_at_every_moment(tmp_path: Path) -> None:
    assert run(_WATCH, tmp_path) == "0o600"


def test_an_empty_file_becomes_private(url: str, path: Path) -> None:
    path.touch()
    path.chmod(0o644)
    open_backend(url).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_database_that_others_may_read_is_left_so_with_a_warning(
    url: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_backend(url).close()
    assert caplog.text == ""
    path.chmod(0o640)
    open_backend(url).close()
    assert path.stat().st_mode & 0o777 == 0o640
    assert "chmod 600" in caplog.text


def test_the_folder_is_flushed_with_its_new_file(url: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_ino))
    for _ in range(2):
        open_backend(url).close()
    assert flushed == [path.parent.stat().st_ino]


def test_closing_leaves_one_file(database: SQLiteDatabase, path: Path) -> None:
    row = commit(database, take_over(database), {b"key": b"value"})
    assert database.get(row.id, [b"key"], TIMEOUT)
    assert len(list(path.parent.iterdir())) == 3
    database.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"{re.escape(str(tmp_path / 'data'))} does not exist; create it"):
        open_backend(f"sqlite:///{tmp_path}/data/keys.db")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(ConfigurationError, match="folder"):
        open_backend(f"sqlite:///{tmp_path}/data/keys.db")


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not a file"):
        open_backend(f"sqlite:///{tmp_path}")


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "keys.db").symlink_to(tmp_path / "gone.db")
    with pytest.raises(ConfigurationError, match=r"keys\.db"):
        open_backend(f"sqlite:///{tmp_path}/keys.db")


def test_a_read_only_folder_is_named(ordinary_users_folder: Path) -> None:
    ordinary_users_folder.chmod(0o500)
    with pytest.raises(ConfigurationError, match="may write to"):
        open_backend(f"sqlite:///{ordinary_users_folder}/keys.db")


def test_a_database_in_a_read_only_folder_is_named(ordinary_users_folder: Path) -> None:
    url = f"sqlite:///{ordinary_users_folder}/keys.db"
    open_backend(url).close()
    ordinary_users_folder.chmod(0o500)
    with pytest.raises(ConfigurationError, match="write to the file and to its folder"):
        open_backend(url)


def test_a_file_that_this_user_may_only_read_is_read_beside_its_owner(ordinary_users_folder: Path) -> None:
    path = ordinary_users_folder / "keys.db"
    url = f"sqlite:///{path}"
    with closing(open_sqlite(url, {}, TIMEOUT)) as owner:
        row = commit(owner, take_over(owner), {b"key": b"value"})
        path.chmod(0o400)
        with closing(open_sqlite(url, {}, TIMEOUT)) as database:
            assert not database.health(TIMEOUT).writable
            assert database.get(row.id, [b"key"], TIMEOUT) == [Row(b"key", b"value")]
            with pytest.raises(ConfigurationError, match="must be able to write"):
                database.take_over(row.user_id, row.device_id, new_claim(), TIMEOUT)
            with pytest.raises(BackendUnavailable, match="cannot be written"):
                database.commit(row.id, next_batch(row, {b"key": b"other"}), TIMEOUT)
        row = commit(owner, row)
    path.chmod(0o600)
    with closing(open_sqlite(url, {}, TIMEOUT)) as database:
        assert database.accounts(TIMEOUT) == [row]


def test_a_file_that_nobody_may_read_is_named(ordinary_users_folder: Path) -> None:
    path = ordinary_users_folder / "keys.db"
    open_backend(f"sqlite:///{path}").close()
    path.chmod(0)
    with pytest.raises(ConfigurationError, match="cannot open"):
        open_backend(f"sqlite:///{path}")


@pytest.mark.parametrize("content", [b"xx", b"no database at all " * 1_000, b"SQLite format 3\0" + b"?" * 5_000])
def test_a_file_that_is_no_database_is_left_alone(url: str, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
    before = contents(path.parent)
    with pytest.raises(ConfigurationError, match="is not a SQLite database"):
        open_backend(url)
    assert contents(path.parent) == before


def test_nios_own_store_is_left_alone(tmp_path: Path) -> None:
    store = SqliteStore("@alice:example.org", "ALICEDEVICE", str(tmp_path), "pickle key", "nio.db")
    store.database.close()
    before = contents(tmp_path)
    with pytest.raises(ConfigurationError, match="import-nio"):
        open_backend(f"sqlite:///{tmp_path}/nio.db")
    assert contents(tmp_path) == before


def test_an_empty_database_of_another_program_is_left_alone(url: str, path: Path, execute: Execute) -> None:
    execute("PRAGMA application_id = 7")
    before = contents(path.parent)
    with pytest.raises(ConfigurationError, match="another program"):
        open_backend(url)
    assert contents(path.parent) == before


def test_a_database_made_from_an_sql_dump_is_named_and_can_be_marked(url: str, path: Path) -> None:
    """A dump has the tables and their rows, and leaves the header out."""
    with open_backend(url) as backend:
        row = take_over(backend.database)
    dumped = path.with_name("dumped.db")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(dumped)) as target:
        target.executescript("\n".join(source.iterdump()))
    with pytest.raises(ConfigurationError, match=r"made from an SQL dump.* run: (sqlite3 .*)") as caught:
        open_backend(f"sqlite:///{dumped}")
    file, statement = shlex.split(str(caught.value).partition("run: ")[2])[1:]
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(statement)
    with open_backend(f"sqlite:///{dumped}") as backend:
        assert backend.database.accounts(TIMEOUT) == [row]


def test_a_damaged_database_is_named(url: str, path: Path) -> None:
    with open_backend(url) as backend:
        take_over(backend.database)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="restore a backup"), open_backend(url) as backend:
        backend.accounts()


@pytest.mark.parametrize(
    "loss",
    [
        "DROP TABLE schema_version",
        "DELETE FROM schema_version",
        "DROP TABLE account",
        "DROP TABLE ownership",
        "DROP TABLE record",
    ],
)
def test_lost_tables_are_an_error_of_the_schema(url: str, execute: Execute, loss: str) -> None:
    with open_backend(url) as backend:
        take_over(backend.database)
    execute(loss)
    with pytest.raises(SchemaError, match="restore a backup"), open_backend(url) as backend:
        commit(backend.database, take_over(backend.database), {b"key": b"value"})


def test_a_newer_schema_is_untouched_also_where_its_program_was_killed(url: str, path: Path) -> None:
    with open_backend(url) as backend:
        take_over(backend.database)
    run(
        """
        import os, sqlite3, sys
        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("UPDATE schema_version SET version = 9, min_compatible = 9")
        os._exit(0)
        """,
        path,
    )
    before = contents(path.parent)
    # The -shm file is only memory: what the -wal file holds is looked up in it.
    before.pop("keys.db-shm")
    assert set(before) == {"keys.db", "keys.db-wal"}
    for _ in range(2):
        with pytest.raises(SchemaTooNew, match="programs before 9 must not touch"):
            open_backend(url)
        assert before.items() <= contents(path.parent).items()


def test_a_newer_schema_that_is_compatible_is_used_as_it_is(url: str, execute: Execute) -> None:
    open_backend(url).close()
    execute("UPDATE schema_version SET version = 9, min_compatible = 1")
    with open_backend(url) as backend:
        commit(backend.database, take_over(backend.database), {b"key": b"value"})
        assert (backend.schema().version, backend.schema().min_compatible) == (9, 1)


def test_a_database_that_was_moved_takes_no_batch_until_it_is_back(database: SQLiteDatabase, path: Path) -> None:
    row = take_over(database)
    batch = next_batch(row, {b"key": b"value"})
    path.rename(path.with_name("elsewhere.db"))
    with pytest.raises(BackendUnavailable, match="moved, deleted or replaced") as caught:
        database.commit(row.id, batch, TIMEOUT)
    assert not caught.value.outcome_unknown
    path.with_name("elsewhere.db").rename(path)
    assert database.commit(row.id, batch, TIMEOUT) == row._replace(sequence=1)


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_a_lost_file_beside_it_takes_no_batch_and_closing_saves_what_was_in_it(
    database: SQLiteDatabase, url: str, path: Path, suffix: str
) -> None:
    row = take_over(database)
    for number in range(20):
        row = commit(database, row, {b"key": b"%d" % number})
    path.with_name(f"{path.name}{suffix}").unlink()
    attempts: list[Callable[[], object]] = [
        lambda: commit(database, row, {b"key": b"late"}),
        lambda: database.accounts(TIMEOUT),
        lambda: database.health(TIMEOUT),
    ]
    for attempt in attempts:
        with pytest.raises(BackendUnavailable, match=rf"{suffix} was moved, deleted or replaced .* close") as caught:
            attempt()
        assert not caught.value.outcome_unknown
    database.close()
    with closing(open_sqlite(url, {}, TIMEOUT)) as later:
        assert later.get(row.id, [b"key"], TIMEOUT) == [Row(b"key", b"19")]


def test_a_disk_that_is_full_at_the_first_start_leaves_nothing_in_the_way(url: str, path: Path) -> None:
    script = """
        import resource, sys
        from cryptostore import StorageFull, open_backend

        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        for size in range(0, 200_000, 4_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
            try:
                open_backend(sys.argv[1]).close()
            except StorageFull as error:
                print("full", "make room" in str(error))
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        print(open_backend(sys.argv[1]).schema().version)
    """
    *refusals, version = run(script, url).splitlines()
    assert set(refusals) == {"full True"}
    assert len(refusals) > 3
    assert int(version) > 0
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_forked_process_can_neither_use_nor_reopen_the_database(url: str, path: Path) -> None:
    script = """
        import os, sys
        from cryptostore import Account, Changes, CryptoStoreError, SyncToken, new_pickle_key, open_backend

        url, account = sys.argv[1], Account("@a:b", "D")
        backend = open_backend(url)
        store = backend.open_store(account, pickle_key=new_pickle_key())
        if child := os.fork():
            assert os.waitpid(child, 0)[1] == 0
            store.apply(Changes([SyncToken("t")]))
            backend.close()
        else:
            attempts = [
                lambda: store.apply(Changes([SyncToken("x")])),
                lambda: store.get(SyncToken, [()]),
                backend.accounts,
                lambda: open_backend(url),
            ]
            for attempt in attempts:
                try:
                    attempt()
                except CryptoStoreError as error:
                    print(type(error).__name__, str(error).count("spawn"), flush=True)
            backend.close()
            open_backend(url + "2").close()
            os._exit(0)
    """
    assert run(script, url).splitlines() == [*["StoreClosed 1"] * 3, "ConfigurationError 1"]
    with open_backend(url) as backend:
        assert [ownership.sequence for ownership in backend.accounts().values()] == [1]


def test_a_process_forked_after_the_database_was_closed_opens_it(url: str) -> None:
    script = """
        import os, sys
        from cryptostore import open_backend

        open_backend(sys.argv[1]).close()
        if child := os.fork():
            assert os.waitpid(child, 0)[1] == 0
        else:
            open_backend(sys.argv[1]).close()
            os._exit(0)
    """
    assert run(script, url) == ""


def test_a_database_that_may_not_grow_takes_nothing_of_a_batch_and_all_of_it_later(database: SQLiteDatabase) -> None:
    row = take_over(database)
    batch = next_batch(row, {b"large": b"v" * 1_000_000, b"small": b"v"})
    writer = database._connections._writer
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages + 10}")
    with pytest.raises(StorageFull, match="make room"):
        database.commit(row.id, batch, TIMEOUT)
    assert database.find(row.user_id, row.device_id, TIMEOUT) == row
    assert database.ranges(row.id, [Range(b"", None)], TIMEOUT) == []
    writer.execute("PRAGMA max_page_count = 1000000")
    assert database.commit(row.id, batch, TIMEOUT) == row._replace(sequence=1)
    assert database.ranges(row.id, [Range(b"", None)], TIMEOUT) == batch.puts
