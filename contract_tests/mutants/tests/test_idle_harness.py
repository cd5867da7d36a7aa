"""A harness that breaks nothing, as where a URL does not lead through the proxy: no case of a fault passes with it."""

from __future__ import annotations

import pytest

from cryptostore import FULL, BackendPlugin
from cryptostore_contract import StoreContract, waiting
from cryptostore_contract.manifest import functions_of

pytest_plugins = ["pytester"]

_MODULE = """
from contextlib import nullcontext

import pytest
from cryptostore_contract import Ability, StoreContract, managed
from cryptostore_contract.memory import MemoryHarness
from cryptostore_contract.proxy import Proxy

class IdleHarness(MemoryHarness):
    abilities = frozenset(Ability)
    proxy = None

    def __init__(self):
        super().__init__()
        self.proxy = Proxy(("127.0.0.1", 9))

    def cut_connections(self):
        return self.proxy.cut()

    def silent_network(self):
        return self.proxy.silent()

    def frozen_server(self):
        return nullcontext()

    def no_free_connections(self):
        return nullcontext()

    def end_sessions(self):
        pass

    def stop_server(self):
        pass

    def kill_server(self):
        pass

    def start_server(self):
        pass

    def close(self):
        self.proxy.close()

class TestIdle(StoreContract):
    @pytest.fixture
    def harness(self):
        yield from managed(IdleHarness())
"""


def test_every_case_of_a_fault_fails(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    # What a backend denies is not asked for.
    monkeypatch.setattr(BackendPlugin, "claim", lambda *_: FULL)
    # Where a case waits for an error that does not come.
    monkeypatch.setattr(waiting, "HANGS", 2.0)
    functions = functions_of(StoreContract)
    names = {functions[one].__name__ for one in functions if one.startswith(("FAULTS-", "SEVERING-"))}
    pytester.makepyfile(test_it=_MODULE)
    wanted = [f"test_it.py::TestIdle::{name}" for name in names]
    run = pytester.inline_run("-p", "no:cacheprovider", "-m", "soak or not soak", *wanted)
    passed, skipped, failed = run.listoutcomes()
    assert [report.nodeid for report in (*passed, *skipped)] == []
    assert {report.nodeid.split("::")[-1].partition("[")[0] for report in failed} == names
    assert {report.nodeid: _message(report) for report in failed if not _is_asserted(report)} == {}


def _message(report: pytest.CollectReport | pytest.TestReport) -> str:
    return str(getattr(getattr(report.longrepr, "reprcrash", None), "message", ""))


def _is_asserted(report: pytest.CollectReport | pytest.TestReport) -> bool:
    """Whether a case failed by an assertion of its own, rather than by tripping over something."""
    return _message(report).startswith(("AssertionError", "assert ", "Failed: DID NOT RAISE"))
