"""Fixtures for tests that run on each of our backends; a conftest.py imports those that its tests use."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

__all__ = ["memory_url", "url"]


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, on each of our backends."""
    if request.param == "memory":
        return f"memory://{uuid4()}"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/keys.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def memory_url() -> str:
    """An empty database in memory, for what does not depend on the backend."""
    return f"memory://{uuid4()}"
