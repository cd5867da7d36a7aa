"""Places where a database would lose keys: a file mounted alone, file systems without shared memory, links to them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from cryptostore import ConfigurationError, open_backend
from cryptostore_sqlite import checks, mounts
from cryptostore_sqlite.mounts import Mount
from killed_programs import killed
from left_alone import refuses

_MOUNTS: Final = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:40 / {folder} rw,relatime shared:7 master:1 - {type} server:/keys rw
"""


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


def test_a_mount_that_is_read_only_is_named(tmp_path: Path, namespace: list[str]) -> None:
    folder, mounted = tmp_path / "folder", tmp_path / "mounted"
    for each in (folder, mounted):
        each.mkdir()
    open_backend(f"sqlite:///{folder}/keys.db").close()
    program = "import sys; from cryptostore import open_backend; open_backend(sys.argv[1]).close()"
    script = (
        'mount --bind "$1" "$2" && mount -o remount,bind,ro "$2" || exit 77; exec "$3" -c "$4" "sqlite:///$2/keys.db"'
    )
    arguments = map(str, (folder, mounted, sys.executable, program))
    done = subprocess.run([*namespace, "sh", "-c", script, "sh", *arguments], capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip(f"not verified: this system lets this user mount nothing read-only ({done.stderr})")
    assert "ConfigurationError" in done.stderr
    assert f"{mounted}/keys.db is on a file system that is mounted read-only" in done.stderr
    assert "copy it" in done.stderr


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


@pytest.mark.parametrize(
    "file_system", ["nfs4", "cifs", "9p", "virtiofs", "virtiofs.virtiofs0", "fakeowner", "fuse.sshfs"]
)
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
