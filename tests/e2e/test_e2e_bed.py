"""The bed itself: it tells the truth, and fails where it cannot."""

from __future__ import annotations

import sys

import pytest

from homeserver import Homeserver
from homeserver_install import NoHomeserver, synapse_python


@pytest.mark.parametrize("python", [sys.executable, "/nonexistent/python"])
def test_without_synapse_a_run_fails_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch, python: str) -> None:
    monkeypatch.setenv("CRYPTOSTORE_TEST_SYNAPSE_PYTHON", python)
    with pytest.raises(NoHomeserver, match=r"pip install matrix-synapse==.* CRYPTOSTORE_TEST_SYNAPSE_PYTHON"):
        synapse_python()


@pytest.mark.e2e
def test_synapse_runs_with_its_own_defaults_but_for_what_has_a_reason(homeserver: Homeserver) -> None:
    assert homeserver.differing() == {name for setting in homeserver.settings for name in setting.decides}
    assert all(setting.reason for setting in homeserver.settings)
