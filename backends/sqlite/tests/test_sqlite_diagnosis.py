"""What `cryptostore doctor` is told of a SQLite database: each fault, and that looking at it changes nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from cryptostore import Account, Changes, Finding, Level, SyncToken, load_backend, open_backend
from cryptostore.plugins.urls import options_of
from cryptostore_contract.samples import KEY
from cryptostore_sqlite import diagnosis, holders, mounts
from cryptostore_sqlite.diagnosis import CHECKS
from killed_programs import killed
from left_alone import contents

Execute = Callable[..., list[tuple[Any, ...]]]

_MOUNTS: Final = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:40 / {folder} rw,relatime shared:7 master:1 - {type} server:/keys rw
"""


def diagnosed(url: str, folder: Path | None = None) -> list[Finding]:
    """The findings. Nothing in the folder was touched, made or deleted; what SQLite keeps for its readers apart."""
    diagnose = load_backend("sqlite").diagnose
    assert diagnose is not None
    before = seen_in(folder)
    findings = list(diagnose(url, options_of(url, {}), 10.0))
    assert seen_in(folder) == before
    assert {each.check for each in findings} <= set(CHECKS)
    return findings


def seen_in(folder: Path | None) -> dict[str, str]:
    found = {} if folder is None else contents(folder)
    return {name: "" if name.endswith("-shm") else content for name, content in found.items()}


def faults(url: str, folder: Path | None = None) -> list[Finding]:
    return [each for each in diagnosed(url, folder) if each.level is not Level.OK]


def fault(url: str, folder: Path | None = None) -> Finding:
    [found] = faults(url, folder)
    return found


def test_nothing_is_wrong_with_a_database_that_is_closed(url: str, tmp_path: Path) -> None:
    open_backend(url).close()
    findings = diagnosed(url, tmp_path)
    assert [each.check for each in findings if each.level is not Level.OK] == []
    assert sorted(each.check for each in findings) == sorted(CHECKS)
    told = {each.check: each.seen for each in findings}
    assert sqlite3.sqlite_version in told["driver"]
    assert str(tmp_path) in told["file"]


def test_nor_with_one_in_use_whose_process_is_named(url: str, alice: Account) -> None:
    with open_backend(url) as backend, backend.open_store(alice, pickle_key=KEY) as store:
        store.apply(Changes([SyncToken("t")]))
        findings = diagnosed(url)
        assert [each.check for each in findings if each.level is not Level.OK] == []
        store.apply(Changes([SyncToken("u")]))
    told = {each.check: each.seen for each in findings}
    assert f"process {os.getpid()} of this machine" in told["log"]


def test_a_system_that_does_not_tell_of_locks(
    url: str, tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holders, "_LOCKS", tmp_path / "none")
    with open_backend(url):
        assert holders.holders(path) == []


def test_a_file_that_is_not_there_is_not_made(url: str, tmp_path: Path) -> None:
    found = fault(url, tmp_path)
    assert (found.check, found.level, found.prevents_opening) == ("file", Level.WARNING, True)
    assert "cryptostore migrate" in found.remedy
    never = fault(f"{url}?create=never", tmp_path)
    assert (never.level, never.prevents_opening) == (Level.PROBLEM, True)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    found = fault(f"sqlite:///{tmp_path}/none/keys.db")
    assert (found.check, found.level) == ("file", Level.PROBLEM)
    assert f"{tmp_path}/none does not exist" in found.seen


def test_a_link_that_leads_nowhere(url: str, path: Path) -> None:
    path.symlink_to(path.with_name("gone.db"))
    found = fault(url)
    assert (found.check, found.level) == ("file", Level.PROBLEM)
    assert "is a disk not mounted" in found.remedy


def test_a_link_is_followed_and_named(url: str, path: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    target = tmp_path / "disk" / "real.db"
    open_backend(f"sqlite:///{target}").close()
    path.symlink_to(target)
    told = {each.check: each.seen for each in diagnosed(url)}
    assert f"{target} (a link: {path})" in told["file"]


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    assert "is not a file" in next(each for each in faults(f"sqlite:///{tmp_path}") if each.check == "file").seen


def test_what_this_user_may_not_write(ordinary_users_folder: Path) -> None:
    url = f"sqlite:///{ordinary_users_folder}/keys.db"
    open_backend(url).close()
    ordinary_users_folder.chmod(0o500)
    found = next(each for each in faults(url) if each.check == "file")
    ordinary_users_folder.chmod(0o700)
    assert found.level is Level.PROBLEM
    assert found.commands == (f"chown {os.geteuid()} {ordinary_users_folder}",)
    ordinary_users_folder.joinpath("keys.db").unlink()
    ordinary_users_folder.chmod(0o500)
    assert "may make none" in fault(url).seen
    ordinary_users_folder.chmod(0o700)
    assert fault(url).level is Level.WARNING


def test_a_folder_that_this_user_may_not_enter(ordinary_users_folder: Path) -> None:
    inner = ordinary_users_folder / "inner"
    inner.mkdir()
    url = f"sqlite:///{inner}/keys.db"
    open_backend(url).close()
    inner.chmod(0o000)
    assert f"may not enter the folder {inner}" in fault(url).seen
    inner.chmod(0o700)
    ordinary_users_folder.chmod(0o000)
    assert f"the folder {inner} does not exist" in fault(url).seen
    ordinary_users_folder.chmod(0o700)


def test_modes_that_let_others_in(url: str, path: Path) -> None:
    with open_backend(url):
        path.chmod(0o644)
        path.with_name("keys.db-wal").chmod(0o660)
        found = fault(url)
        assert (found.check, found.level) == ("modes", Level.WARNING)
        assert "keys.db has mode 0644, keys.db-wal has mode 0660" in found.seen
        for command in found.commands:
            subprocess.run(["sh", "-c", command], check=True)
        assert faults(url) == []


@pytest.mark.parametrize("file_system", ["nfs4", "cifs", "9p", "virtiofs", "fakeowner", "virtiofs.virtiofs0"])
def test_a_file_system_that_loses_data_is_named(
    file_system: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_backend(url).close()
    table = tmp_path / "mountinfo"
    table.write_text(_MOUNTS.format(folder=tmp_path, type=file_system))
    monkeypatch.setattr(mounts, "_TABLE", table)
    found = fault(url, tmp_path)
    assert (found.check, found.level, found.prevents_opening) == ("place", Level.PROBLEM, True)
    assert f"of the type {file_system}" in found.seen
    assert "local disk" in found.seen + found.remedy
    told = {each.check: each for each in diagnosed(f"{url}?file_system=any")}
    assert (told["place"].level, file_system in told["place"].seen) == (Level.OK, True)


def test_a_single_file_mount_is_told_with_everything_else(tmp_path: Path) -> None:
    command = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    host, container = tmp_path / "host.db", tmp_path / "container" / "keys.db"
    open_backend(f"sqlite:///{host}").close()
    host.chmod(0o644)
    container.parent.mkdir()
    container.touch()
    program = (
        "import sys; from cryptostore import load_backend;"
        "[print(each.check, each.level, each.seen) for each in load_backend('sqlite').diagnose(sys.argv[1], {}, 5)]"
    )
    script = 'mount --bind "$1" "$2" && exec "$3" -c "$4" "sqlite:///$2"'
    arguments = map(str, (host, container, sys.executable, program))
    done = subprocess.run([*command, "sh", "-c", script, "sh", *arguments], capture_output=True, text=True)
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"not verified: this system lets this user mount nothing ({done.stderr})")
    assert f"place problem {container} is mounted as a single file" in done.stdout
    assert "modes warning" in done.stdout
    assert sorted(container.parent.iterdir()) == [container]


def test_a_second_name(url: str, path: Path, tmp_path: Path) -> None:
    open_backend(url).close()
    os.link(path, tmp_path / "other.db")
    found = fault(url, tmp_path)
    assert (found.check, found.level) == ("place", Level.PROBLEM)
    assert "keep one name" in found.remedy


def test_a_log_that_a_killed_program_left_stays_as_it_is(url: str, path: Path, tmp_path: Path) -> None:
    killed(url, 20)
    found = fault(url, tmp_path)
    assert (found.check, found.level, found.prevents_opening) == ("log", Level.NOTE, False)
    assert "keys.db-wal holds" in found.seen
    # As in a copy without it.
    path.with_name("keys.db-shm").unlink()
    assert fault(url, tmp_path).check == "log"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["keys.db", "keys.db-wal"]


def test_a_log_that_belongs_to_another_file(url: str, path: Path, tmp_path: Path) -> None:
    killed(url, 5, "closed", 20)
    older = tmp_path / "backup.db"
    killed(f"sqlite:///{tmp_path}/other.db", 40)
    shutil.copyfile(tmp_path / "other.db-wal", f"{path}-wal")
    shutil.copyfile(older, path)
    found = fault(url)
    assert (found.check, found.level, found.prevents_opening) == ("log", Level.PROBLEM, True)
    assert "was not written for this" in found.seen


def test_a_log_whose_file_is_gone(url: str, path: Path, tmp_path: Path) -> None:
    killed(url, 20)
    path.unlink()
    found = {each.check: each for each in faults(url, tmp_path)}
    assert found["place"].level is Level.PROBLEM
    assert "put back the file that belongs to it" in found["place"].remedy


def test_a_journal_that_was_left(url: str, path: Path) -> None:
    open_backend(url).close()
    path.with_name("keys.db-journal").touch(0o600)
    found = fault(url)
    assert (found.check, found.level) == ("log", Level.NOTE)


@pytest.mark.parametrize(
    ("statement", "level", "seen"),
    [
        ("UPDATE schema_version SET version = 0, min_compatible = 0", Level.NOTE, "version 0"),
        ("UPDATE schema_version SET version = 9, min_compatible = 9", Level.PROBLEM, "format version 9"),
        ("UPDATE schema_version SET version = 9", Level.OK, "version 9"),
        ("DELETE FROM schema_version", Level.PROBLEM, "version is missing"),
        ("PRAGMA application_id = 0", Level.PROBLEM, "not its mark"),
        ("PRAGMA application_id = 7", Level.PROBLEM, "another program's"),
    ],
)
def test_tables_of_another_version_or_program(
    url: str, tmp_path: Path, execute: Execute, statement: str, level: Level, seen: str
) -> None:
    open_backend(url).close()
    execute(statement)
    [found] = [each for each in diagnosed(url, tmp_path) if each.check == "schema"]
    assert found.level is level
    assert seen in found.seen
    assert found.prevents_opening == (level is Level.PROBLEM)


def test_a_file_that_is_no_database(url: str, path: Path) -> None:
    path.write_text("no database, but a text of some length\n" * 100)
    path.chmod(0o600)
    assert "not a SQLite database" in fault(url).seen


def test_a_copy_without_its_log(url: str, path: Path, tmp_path: Path, execute: Execute) -> None:
    execute("PRAGMA journal_mode = WAL")
    path.chmod(0o600)
    found = fault(url, tmp_path)
    assert (found.check, found.level) == ("schema", Level.PROBLEM)
    assert "was it copied while it was open" in found.seen + found.remedy


def test_a_database_without_tables(url: str, path: Path, execute: Execute) -> None:
    execute("PRAGMA user_version = 0")
    execute("VACUUM")
    path.chmod(0o600)
    assert fault(url).level in (Level.NOTE, Level.WARNING)


def test_a_sqlite_that_is_too_old(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_backend(url).close()
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    found = fault(url)
    assert (found.check, found.level, found.prevents_opening) == ("driver", Level.PROBLEM, True)


@pytest.mark.parametrize(
    ("version", "has_bug"),
    [
        ((3, 37, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 0), False),
        ((4, 0, 0), False),
    ],
    ids=str,
)
def test_a_sqlite_that_may_lose_what_several_processes_write(
    url: str, monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], has_bug: bool
) -> None:
    open_backend(url).close()
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    assert faults(url) == []
    told = {each.check: each.seen for each in diagnosed(url)}
    assert ("WAL-reset bug" in told["driver"]) is has_bug
    monkeypatch.setattr(diagnosis, "holders", lambda _: [7])
    assert faults(url) == []
    monkeypatch.setattr(diagnosis, "holders", lambda _: [7, 8])
    found = [(each.check, each.level, "one process at a time" in each.remedy) for each in faults(url)]
    assert found == ([("driver", Level.WARNING, True)] if has_bug else [])


def test_options_that_nobody_understands_are_the_cores_to_tell(url: str) -> None:
    with pytest.raises(Exception, match="unknown option 'colour'"):
        diagnosed(f"{url}?colour=red")
