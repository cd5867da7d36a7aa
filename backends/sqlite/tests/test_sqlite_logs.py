"""A database without its -wal, and a -wal that belongs to another state: refused, and never taken for a new one."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
from nio.crypto import OlmAccount

from cryptostore import Range, open_backend
from cryptostore.nio import NioStore
from cryptostore_contract.samples import KEY
from cryptostore_sqlite.database import SQLiteDatabase
from cryptostore_sqlite.plugin import open_sqlite
from killed_programs import ACCOUNT, BACKUPS, killed, saved
from left_alone import refuses
from raw_databases import TIMEOUT, commit, take_over

Execute = Callable[..., list[tuple[Any, ...]]]


def test_the_tables_are_in_the_file_before_it_has_a_log(database: SQLiteDatabase, path: Path) -> None:
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as alone:
        assert alone.execute("SELECT version FROM schema_version").fetchone() == (1,)


def test_a_lone_copy_of_a_young_account_is_not_a_new_one(database: SQLiteDatabase, path: Path) -> None:
    row = take_over(database)
    for number in range(1, 4):
        row = commit(database, row, {b"key": b"%d" % number})
        copy = shutil.copyfile(path, path.with_name(f"copy{number}.db"))
        with closing(open_sqlite(f"sqlite:///{copy}", {}, TIMEOUT)) as copied:
            assert copied.find(row.user_id, row.device_id, TIMEOUT) == row
            assert copied.ranges(row.id, [Range(b"", None)], TIMEOUT) == [(b"key", b"%d" % number)]


def test_a_lone_copy_of_a_new_clients_database_has_its_olm_account(url: str, path: Path) -> None:
    olm = OlmAccount()
    with closing(NioStore(ACCOUNT.user_id, ACCOUNT.device_id, url, KEY)) as store:
        store.save_account(olm)
        copy = shutil.copyfile(path, path.with_name("copy.db"))
    with closing(NioStore(ACCOUNT.user_id, ACCOUNT.device_id, f"sqlite:///{copy}", KEY)) as store:
        copied = store.load_account()
    assert copied is not None
    assert copied.identity_keys == olm.identity_keys


def test_a_copy_whose_tables_are_in_a_log_that_is_not_there_is_refused(url: str, path: Path, execute: Execute) -> None:
    execute("PRAGMA journal_mode = WAL")
    refuses(url, path.parent, "copied while it was open")


@pytest.mark.parametrize("loss", [Path.unlink, lambda path: path.write_bytes(b"")], ids=["missing", "empty"])
def test_a_file_that_is_lost_beside_its_log_is_not_made_new(
    url: str, path: Path, loss: Callable[[Path], object]
) -> None:
    killed(url, 20)
    loss(path)
    refuses(url, path.parent, r"keys\.db-wal beside it holds data")


def test_a_log_without_data_is_no_reason(url: str, path: Path) -> None:
    path.with_name("keys.db-wal").touch(0o600)
    open_backend(url).close()


@pytest.mark.parametrize("more", [3, 40, 270])
@pytest.mark.parametrize("backup", BACKUPS)
def test_a_log_beside_a_backup_that_was_put_back_is_refused(url: str, path: Path, backup: str, more: int) -> None:
    killed(url, 20, backup, more)
    shutil.copyfile(path.with_name("backup.db"), path)
    refuses(url, path.parent, r"was a backup put back beside it\? If so, move .*keys\.db-wal and .*keys\.db-shm away")
    for suffix in ("-wal", "-shm"):
        path.with_name(f"keys.db{suffix}").rename(path.with_name(f"away{suffix}"))
    assert saved(url) == 20


@pytest.mark.parametrize("times", [1, 2, 5, 6])
def test_a_backup_over_older_backups_is_told_too(url: str, path: Path, times: int) -> None:
    killed(url, 20, "backup", 3, times=times)
    shutil.copyfile(path.with_name("backup.db"), path)
    refuses(url, path.parent, "was a backup put back")


@pytest.mark.parametrize("saves", [0, 1, 8, 9, 40, 300])
def test_a_killed_programs_database_opens_with_all_that_was_saved(url: str, saves: int) -> None:
    killed(url, saves)
    assert saved(url) == saves
    killed(url, saves, more=1)


@pytest.mark.parametrize("statement", ["VACUUM", "CREATE INDEX another ON account (device_id)", "PRAGMA user_version"])
def test_what_another_program_did_before_the_kill_is_no_reason(url: str, statement: str) -> None:
    killed(url, 20, statement, 20)
    assert saved(url) == 40


def test_a_checkpoint_that_was_killed_is_no_reason(url: str, path: Path) -> None:
    killed(url, 150)
    log = path.with_name("keys.db-wal").read_bytes()
    page_bytes = int.from_bytes(log[8:12])
    frames = [log[start : start + 24 + page_bytes] for start in range(32, len(log), 24 + page_bytes)]
    newest = [frame for frame in frames if frame[:4] == b"\0\0\0\x01"][-1]
    # The first page only: its header counts more pages than the file has.
    with path.open("r+b") as file:
        file.write(newest[24:])
    assert int.from_bytes(newest[24:][28:32]) * page_bytes > path.stat().st_size
    assert saved(url) == 150


_PAGE: Final = Path(__file__).parents[3] / "docs" / "backups.md"


def commands(*words: str) -> str:
    """The one block of shell commands in the page about backups that has these words."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", _PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    [found] = [block for block in blocks if all(word in block for word in words)]
    return f"set -eu\n{found}"


@pytest.mark.parametrize("program", ["sqlite3", "python3"])
def test_the_noted_commands_back_up_an_open_database_and_put_it_back(url: str, path: Path, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"not verified: this system has no {program}")
    killed(url, 20)
    with open_backend(url):
        subprocess.run(["sh", "-c", commands(f"{program} ", "VACUUM INTO")], cwd=path.parent, check=True)
    killed(url, 40)
    subprocess.run(["sh", "-c", commands("mv keys.db*")], cwd=path.parent, check=True)
    assert {file.name for file in (path.parent / "replaced").iterdir()} == {"keys.db", "keys.db-wal", "keys.db-shm"}
    assert {file.stat().st_mode & 0o777 for file in (path, path.with_name("backup.db"))} == {0o600}
    assert saved(url) == 20
