"""A backend that does not close any more must not keep the run from its end."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

#: The model with pages that keep its lock where there may be another, and a `close` that needs the lock.
_MODULE = """
import pytest
from cryptostore import BackendUnavailable
from cryptostore.store.memory import MemoryHandle
from cryptostore_contract import managed, waiting
from cryptostore_contract.cases.scanning import ScanningCases
from cryptostore_contract.memory import MemoryHarness

waiting.HANGS = 2.0

def close_under_the_lock(handle):
    with handle.shared.lock:
        pass

def page_under_the_lock(handle, account_id, within, size, timeout):
    if not handle.shared.lock.acquire(timeout=timeout):
        raise BackendUnavailable("busy")
    records = handle._records(handle.shared, account_id)
    rows = records.rows(records.within(within)[:size])
    if len(rows) < size:
        handle.shared.lock.release()
    return rows

class TestMemory(ScanningCases):
    @pytest.fixture
    def harness(self, monkeypatch):
        class Hasty(MemoryHarness):
            def open(self, **options):
                return super().open(deadline=0.5)
        monkeypatch.setattr(MemoryHandle, "page", page_under_the_lock)
        monkeypatch.setattr(MemoryHandle, "close", close_under_the_lock)
        yield from managed(Hasty())
"""


def test_a_case_that_failed_with_the_lock_held_does_not_hang_in_its_teardown(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(_MODULE)
    chosen = "abandoned or (stays_there and value)"
    ended = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-k", chosen, timeout=60)
    ended.assert_outcomes(failed=1, errors=1, passed=1, deselected=ended.parseoutcomes()["deselected"])
    ended.stdout.fnmatch_lines("E*handle 1 of the 2 that the case opened does not close: still waiting after 2 s*")
