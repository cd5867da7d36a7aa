"""Where an account is copied from, and where to."""

from __future__ import annotations

import pytest

from copied import RECORDS, place, save
from cryptostore.store import sealed_account
from cryptostore.store.copying import Place


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of 30 rows takes some batches."""
    monkeypatch.setattr(sealed_account, "_FIRST_PAGE_ROWS", 3)
    monkeypatch.setattr(sealed_account, "_PAGE_ROWS", 10)


@pytest.fixture
def source() -> Place:
    found = place("source")
    save(found, *RECORDS)
    return found


@pytest.fixture
def destination() -> Place:
    return place("destination")
