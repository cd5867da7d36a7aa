"""Clients on a small homeserver, with real HTTP, real Olm and a database of each backend."""

from __future__ import annotations

import pytest

from clock import Clock
from cryptostore.nio.client import fallback_keys, unreached
from database_urls import memory_url, url
from postgres_fixtures import postgres_database, postgres_url
from told import told

__all__ = ["memory_url", "postgres_database", "postgres_url", "told", "url"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time by which clients wait for hours."""
    clock = Clock()
    for module in (fallback_keys, unreached):
        monkeypatch.setattr(module, "now", clock)
    return clock
