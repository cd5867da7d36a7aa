"""Settings of the core's own tests."""

from hypothesis import settings

from homeserver_selection import pytest_deselected, pytest_terminal_summary, pytest_testnodedown

__all__ = ["pytest_deselected", "pytest_terminal_summary", "pytest_testnodedown"]

# Machines that run tests are busy: a slow example is no failure.
settings.register_profile("cryptostore", deadline=None)
settings.load_profile("cryptostore")
