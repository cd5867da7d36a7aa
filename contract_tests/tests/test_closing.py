"""A backend that does not close any more must not keep the run from its end."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

#: The model with scans that hold its lock at their `yield`, and a `close` that needs the lock.
_MODULE = """
import pytest
from cryptostore import BackendUnavailable
from cryptostore.memory import MemoryBackend, MemoryStore
from cryptostore_contract import managed, waiting
from cryptostore_contract.cases.scanning import ScanningCases
from cryptostore_contract.memory import MemoryHarness

waiting.HANGS = 2.0
close, pages = MemoryBackend.close, MemoryStore._pages

def close_under_the_lock(backend):
    with backend._database.lock:
        close(backend)

def pages_under_the_lock(store, kind, prefix):
    if not store._database.lock.acquire(timeout=0.5):
        raise BackendUnavailable("busy")
    try:
        yield from store._row.table(kind).page(prefix)
    finally:
        store._database.lock.release()

class TestMemory(ScanningCases):
    @pytest.fixture
    def harness(self, monkeypatch):
        monkeypatch.setattr(MemoryBackend, "close", close_under_the_lock)
        monkeypatch.setattr(MemoryStore, "_pages", pages_under_the_lock)
        yield from managed(MemoryHarness())
"""


def test_a_case_that_failed_with_the_lock_held_does_not_hang_in_its_teardown(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(_MODULE)
    chosen = "abandoned or pages_are_cut"
    ended = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-k", chosen, timeout=60)
    ended.assert_outcomes(failed=1, errors=1, passed=1, deselected=ended.parseoutcomes()["deselected"])
    ended.stdout.fnmatch_lines("E*handle 1 of the 2 that the case opened does not close: still waiting after 2 s*")
