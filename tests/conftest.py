"""Settings of the core's own tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from cryptostore.nio import sealing
from homeserver_selection import pytest_deselected, pytest_terminal_summary, pytest_testnodedown

__all__ = ["pytest_deselected", "pytest_terminal_summary", "pytest_testnodedown"]

# Machines that run tests are busy: a slow example is no failure.
settings.register_profile("cryptostore", deadline=None)
settings.load_profile("cryptostore")


@pytest.fixture(scope="session", autouse=True)
def cheap_seals() -> Iterator[None]:
    """Thousands of stores are opened here, and nobody guesses their pickle keys. Child processes seal as usual."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealing, "COST", 1)
        yield
