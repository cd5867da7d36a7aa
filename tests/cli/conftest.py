"""Fixtures of the command line's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import run
from fake_distributions import FakeSite
from postgres_fixtures import breakable_database, postgres_database, postgres_url

__all__ = ["breakable_database", "postgres_database", "postgres_url", "run"]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSite:
    """A folder to install distributions into, for this test alone."""
    folder = tmp_path / "site"
    folder.mkdir()
    return FakeSite(folder, monkeypatch)
