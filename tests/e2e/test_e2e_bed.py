"""The bed itself, as far as it needs no homeserver."""

from __future__ import annotations

import sys

import pytest

from homeserver_install import NoHomeserver, synapse_python


@pytest.mark.parametrize("python", [sys.executable, "/nonexistent/python"])
def test_without_synapse_a_run_fails_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch, python: str) -> None:
    monkeypatch.setenv("CRYPTOSTORE_TEST_SYNAPSE_PYTHON", python)
    with pytest.raises(NoHomeserver, match=r"pip install matrix-synapse==.* CRYPTOSTORE_TEST_SYNAPSE_PYTHON"):
        synapse_python()
