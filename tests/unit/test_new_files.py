"""New private files: there whole, or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from cryptostore import ConfigurationError, StorageFull
from cryptostore.plugins.new_files import new_private_file
from cryptostore_contract.limits import limited_files


def test_a_file_is_there_when_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    # What a killed process left.
    (tmp_path / "keys.txt.unfinished").write_bytes(b"half of it")
    with new_private_file(file, "keys") as opened:
        opened.write(b"all of it")
        assert not file.exists()
    assert file.read_bytes() == b"all of it"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["keys.txt"]


def half_written(file: Path, error: BaseException) -> None:
    with new_private_file(file, "keys") as opened:
        opened.write(b"half of it")
        raise error


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt()])
def test_a_file_that_is_not_whole_is_not_there(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        half_written(tmp_path / "keys.txt", error)
    assert list(tmp_path.iterdir()) == []


def test_another_file_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_bytes(b"the only copy")
    with pytest.raises(ConfigurationError, match=r"cannot write keys to .*: File exists; name a new file"):
        half_written(file, AssertionError("it may not be opened"))
    assert file.read_bytes() == b"the only copy"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file or directory"):
        half_written(tmp_path / "none" / "keys.txt", AssertionError("it may not be opened"))


def test_a_file_that_comes_meanwhile_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    with pytest.raises(ConfigurationError, match="File exists"), new_private_file(file, "keys"):
        file.write_bytes(b"another's")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("keys.txt", b"another's")]


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_a_folder_instead_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="cannot write keys to"):
        half_written(Path(name), AssertionError("it may not be opened"))
    assert list(tmp_path.iterdir()) == []


def test_a_link_that_leads_nowhere_is_left_alone(tmp_path: Path) -> None:
    link = tmp_path / "keys.txt"
    link.symlink_to("nowhere")
    with pytest.raises(ConfigurationError, match="File exists"):
        half_written(link, AssertionError("it may not be opened"))
    assert list(tmp_path.iterdir()) == [link]


def written(file: Path, text: bytes, meanwhile: Callable[[], object] = lambda: None) -> None:
    with new_private_file(file, "keys") as opened:
        opened.write(text)
        meanwhile()


def test_two_that_write_the_same_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    with pytest.raises(ConfigurationError, match="another process writes it at the same time"):
        written(file, b"half of it", lambda: written(file, b"all of the other"))
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("keys.txt", b"all of the other")]


def test_one_that_loses_its_name_leaves_that_of_the_other(tmp_path: Path) -> None:
    other = tmp_path / "keys.txt.unfinished"

    def begin() -> None:
        other.unlink()
        other.write_bytes(b"half of the other")

    with pytest.raises(ConfigurationError, match="another process writes it at the same time"):
        written(tmp_path / "keys.txt", b"half of it", begin)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(other.name, b"half of the other")]


def test_a_file_system_without_second_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_names: Path) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    # The file systems of tests have them.
    monkeypatch.setattr(os, "link", refuse)
    with new_private_file(tmp_path / "keys.txt", "keys") as opened:
        opened.write(b"all of it")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("keys.txt", b"all of it")]


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    with limited_files(10_000), pytest.raises(StorageFull, match=r"File too large; make room, or name a file on"):
        fill(tmp_path / "keys.txt", 20_000)
    assert list(tmp_path.iterdir()) == []


def fill(file: Path, size: int) -> None:
    with new_private_file(file, "keys") as opened:
        opened.write(bytes(size))
