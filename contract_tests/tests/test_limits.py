"""The limit that takes the place of a full disk."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from cryptostore_contract import limited_files


def test_an_open_file_does_not_grow_until_the_context_ends(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb", buffering=0) as file:
        file.write(b"x" * 90)
        with limited_files(100):
            assert file.write(b"x" * 20) == 10
            with pytest.raises(OSError, match=f"Errno {errno.EFBIG}"):
                file.write(b"x")
        file.write(b"x" * 1000)


def test_a_failed_case_leaves_no_limit_behind(tmp_path: Path) -> None:
    with pytest.raises(AssertionError), limited_files(100):
        raise AssertionError("a case")
    assert (tmp_path / "file").write_bytes(b"x" * 200) == 200
