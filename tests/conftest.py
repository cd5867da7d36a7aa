"""Settings of the core's own tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from cryptostore.store import pickle_keys
from homeserver_selection import pytest_deselected, pytest_terminal_summary, pytest_testnodedown

__all__ = ["pytest_deselected", "pytest_terminal_summary", "pytest_testnodedown"]

# Machines that run tests are busy: a slow example is no failure.
settings.register_profile("cryptostore", deadline=None)
settings.load_profile("cryptostore")


@pytest.fixture(scope="session", autouse=True)
def cheap_seals() -> Iterator[None]:
    """Thousands of stores are opened here, many with strong passphrases. Child processes pay in full."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pickle_keys, "COST", pickle_keys.COSTS[0])
        yield
