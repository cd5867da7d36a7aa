"""Files that would lose keys if they were opened: each is refused with what to do, and left as it is."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from cryptostore import BackendUnavailable, ConfigurationError, CryptoStoreError, Range, Row, open_backend
from cryptostore_sqlite import checks, connecting, mounts
from cryptostore_sqlite.checks import HAS_SECOND_NAME, IS_MOUNTED_ALONE, IS_ON_UNSUITABLE_FILE_SYSTEM, Seen
from cryptostore_sqlite.database import SQLiteDatabase
from cryptostore_sqlite.mounts import Mount
from cryptostore_sqlite.plugin import open_sqlite
from killed_programs import BACKUPS, killed, saved
from raw_databases import TIMEOUT, commit, next_batch, take_over

Execute = Callable[..., list[tuple[Any, ...]]]

_MOUNTS: Final = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:40 / {folder} rw,relatime shared:7 master:1 - {type} server:/keys rw
"""


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def refuses(url: str, folder: Path, text: str) -> None:
    """Assert that a database is refused twice, and that no file in its folder is touched, made or deleted."""
    before = contents(folder)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=text):
            open_backend(url)
        assert contents(folder) == before


# A database without its -wal


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


def test_a_log_without_data_is_in_nobodys_way(url: str, path: Path) -> None:
    path.with_name("keys.db-wal").touch(0o600)
    open_backend(url).close()


# A backup that was put back


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


# What the operating notes say

_NOTES: Final = Path(__file__).parents[3] / "docs" / "operating.md"


def commands(*words: str) -> str:
    """The one block of shell commands in the operating notes that has these words."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", _NOTES.read_text("utf-8"), re.DOTALL | re.MULTILINE)
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


# Places


@pytest.fixture
def namespace() -> list[str]:
    """A command that runs another one where it may mount."""
    command = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    try:
        subprocess.run([*command, "mount", "--bind", "/tmp", "/tmp"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"not verified: this system lets this user mount nothing ({error})")
    return command


@pytest.mark.parametrize("is_new", [True, False], ids=["empty", "filled"])
def test_a_file_that_is_mounted_alone_is_refused(tmp_path: Path, namespace: list[str], is_new: bool) -> None:
    host, container = tmp_path / "host" / "keys.db", tmp_path / "con tainer" / "keys.db"
    for file in (host, container):
        file.parent.mkdir()
        file.touch()
    if not is_new:
        open_backend(f"sqlite:///{host}").close()
    program = "import sys; from cryptostore import open_backend; open_backend(sys.argv[1]).close()"
    script = 'mount --bind "$1" "$2" && exec "$3" -c "$4" "sqlite:///$2"'
    arguments = map(str, (host, container, sys.executable, program))
    done = subprocess.run([*namespace, "sh", "-c", script, "sh", *arguments], capture_output=True, text=True)
    assert "ConfigurationError" in done.stderr
    assert f"{container} is mounted as a single file" in done.stderr
    assert "mount the folder" in done.stderr
    assert sorted(container.parent.iterdir()) == [container]


@pytest.mark.parametrize(
    ("table", "alone"),
    [
        ([Mount(Path("/"), "overlay"), Mount(Path("/data"), "ext4")], False),
        ([Mount(Path("/"), "overlay"), Mount(Path("/data/keys.db"), "ext4")], True),
        ([], False),
    ],
)
def test_the_table_of_mounts_says_whether_a_file_is_mounted_alone(table: list[Mount], alone: bool) -> None:
    assert checks.is_mounted_alone(Path("/data/keys.db"), table) is alone


def test_without_a_table_the_devices_say_whether_a_file_is_mounted_alone(path: Path) -> None:
    path.touch()
    assert not checks.is_mounted_alone(path, None)
    # A device of its own where /proc is mounted: a folder of another.
    assert checks.is_mounted_alone(Path("/proc"), None)


def test_mounts_are_read_with_their_spaces_and_the_last_one_hides_the_others() -> None:
    table = mounts.parsed(
        "22 1 254:0 / / rw - ext4 /dev/vda rw\n"
        "23 22 0:40 / /a\\040b\\134c rw shared:7 master:1 - nfs4 server:/ rw\n"
        "24 23 0:41 /x /a\\040b\\134c rw - xfs /dev/vdb rw\n"
        "broken\n"
    )
    assert table == [Mount(Path("/"), "ext4"), Mount(Path("/a b\\c"), "nfs4"), Mount(Path("/a b\\c"), "xfs")]
    assert mounts.mount_of(Path("/a b\\c/d"), table) == table[2]
    assert mounts.mount_of(Path("/a b"), table) == table[0]
    assert mounts.mount_of(Path("/a"), []) is None


def test_this_systems_mounts_are_read() -> None:
    found = mounts.mounts()
    if found is None:
        pytest.skip("not verified: this system has no table of mounts")
    assert mounts.mount_of(Path("/proc"), found) == Mount(Path("/proc"), "proc")


def test_a_system_without_a_table_of_mounts_is_asked_nothing_more(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "_TABLE", tmp_path / "none")
    open_backend(url).close()


@pytest.fixture
def on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A folder on a file system of a type. The table of mounts is a stand-in: tests have no such servers."""

    def make(file_system: str) -> Path:
        folder = tmp_path / "mounted"
        folder.mkdir()
        table = tmp_path / "mountinfo"
        table.write_text(_MOUNTS.format(folder=folder, type=file_system))
        monkeypatch.setattr(mounts, "_TABLE", table)
        return folder

    return make


@pytest.mark.parametrize("file_system", ["nfs4", "cifs", "9p", "virtiofs", "fuse.sshfs"])
def test_a_file_system_without_shared_memory_is_named(on: Callable[[str], Path], file_system: str) -> None:
    folder = on(file_system)
    url = f"sqlite:///{folder}/keys.db"
    refuses(url, folder, rf"type {file_system}, .* local disk\. .* file_system=any")
    open_backend(url, file_system="any").close()
    refuses(url, folder, "local disk")


def test_a_link_to_another_file_system_is_followed(on: Callable[[str], Path], url: str, path: Path) -> None:
    path.symlink_to(on("nfs") / "keys.db")
    (path.parent / "mounted" / "keys.db").touch()
    with pytest.raises(ConfigurationError, match="type nfs"):
        open_backend(url)


def test_a_local_file_system_is_no_reason(on: Callable[[str], Path]) -> None:
    open_backend(f"sqlite:///{on('xfs')}/keys.db").close()


def test_a_link_leads_to_the_files_beside_its_target(tmp_path: Path, path: Path, url: str) -> None:
    (tmp_path / "disk").mkdir()
    target = tmp_path / "disk" / "real.db"
    killed(f"sqlite:///{target}", 20)
    path.symlink_to(target)
    target.write_bytes(b"")
    refuses(url, target.parent, "real.db-wal beside it holds data")


# Other names, other users


def test_a_second_name_is_refused(url: str, path: Path, tmp_path: Path) -> None:
    open_backend(url).close()
    os.link(path, tmp_path / "other.db")
    for name in ("keys.db", "other.db"):
        refuses(f"sqlite:///{tmp_path / name}", tmp_path, "2 names .* keep one name")
    (tmp_path / "other.db").unlink()
    open_backend(url).close()


@pytest.mark.parametrize("suffixes", [["-wal"], ["-shm"], ["-wal", "-shm"]], ids=str)
def test_files_beside_it_that_this_user_cannot_write_are_named(
    ordinary_users_folder: Path, suffixes: list[str]
) -> None:
    url = f"sqlite:///{ordinary_users_folder}/keys.db"
    with open_backend(url) as backend:
        take_over(backend.database)
        copies = [(path, path.read_bytes()) for path in ordinary_users_folder.glob("*-*")]
    for path, content in copies:
        path.write_bytes(content)
    named = [ordinary_users_folder / f"keys.db{suffix}" for suffix in suffixes]
    for path in named:
        path.chmod(0o400)
    owner, names = os.geteuid(), " ".join(map(str, named))
    remedy = f"delete nothing, since the newest keys may be in it: chown {owner} {names};"
    with pytest.raises(ConfigurationError, match=re.escape(remedy)):
        open_backend(url)
    for path in named:
        path.chmod(0o600)
    open_backend(url).close()


def test_a_reader_leaves_no_files_where_the_owner_cannot_write_them(ordinary_users_folder: Path) -> None:
    path = ordinary_users_folder / "keys.db"
    url = f"sqlite:///{path}"
    open_backend(url).close()
    path.chmod(0o400)
    refuses(url, ordinary_users_folder, "only read .* while its owner has it open")


@pytest.mark.parametrize("create", ["auto", "never"])
def test_a_missing_file_is_an_error_where_none_may_be_created(url: str, path: Path, create: str) -> None:
    refuses(f"{url}?create=never", path.parent, "there is no database .* create=auto")
    open_backend(url).close()
    open_backend(f"{url}?create={create}").close()


# The reasons, by what is seen


@pytest.mark.parametrize(
    ("reason", "seen", "applies"),
    [
        (IS_MOUNTED_ALONE, Seen(Path("k")), False),
        (IS_MOUNTED_ALONE, Seen(Path("k"), is_mounted_alone=True), True),
        (HAS_SECOND_NAME, Seen(Path("k"), names=1), False),
        (HAS_SECOND_NAME, Seen(Path("k"), names=2), True),
        (checks.HAS_LOST_ITS_FILE, Seen(Path("k"), log_size=32), False),
        (checks.HAS_LOST_ITS_FILE, Seen(Path("k"), log_size=33), True),
        (checks.HAS_LOST_ITS_FILE, Seen(Path("k"), size=4096, log_size=33), False),
        (IS_ON_UNSUITABLE_FILE_SYSTEM, Seen(Path("k"), file_system="ext4"), False),
        (IS_ON_UNSUITABLE_FILE_SYSTEM, Seen(Path("k"), file_system="smb3"), True),
    ],
)
def test_a_reason_applies_by_what_is_seen(reason: checks.Reason, seen: Seen, applies: bool) -> None:
    assert bool(reason.applies(seen)) is applies


# What is left open, and what is set


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
