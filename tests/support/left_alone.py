"""Databases in files that are refused, and of which nothing is changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from cryptostore import ConfigurationError, open_backend


def contents(folder: Path) -> dict[str, str]:
    """The files of a folder, by a hash of their content."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def refuses(url: str, folder: Path, text: str) -> None:
    """Assert that a database is refused twice, and that no file in its folder is touched, made or deleted."""
    before = contents(folder)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=text):
            open_backend(url)
        assert contents(folder) == before
