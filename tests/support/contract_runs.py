"""Runs of the whole contract on the in-memory model inside a test, spoilt in one way or another."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cryptostore_contract.plugin import EXIT_INCOMPLETE

STRICT = ("--strict-markers", "-W", "error", "-p", "no:cacheprovider", "--cryptostore-report=report.json")

#: How a run with a report ends.
EXITS = {"PASS": 0, "FAIL": 1, "INCOMPLETE": EXIT_INCOMPLETE}

#: The whole contract on the in-memory model; `{body}` may spoil it.
CONTRACT = """
import pytest
from cryptostore_contract import Ability, StoreContract, managed
from cryptostore_contract.memory import MemoryHarness

class TestMemory(StoreContract):
    @pytest.fixture
    def harness(self):
        yield from managed(MemoryHarness())
{body}
"""

#: The case at stake, which is ISOLATION-9, and the few that run beside it where the rest would only take time.
CASE = "test_an_empty_database_has_no_accounts"
FEW = ("-k", f"{CASE} or not_found")


def run(pytester: pytest.Pytester, *arguments: str, body: str = "", conftest: str = "") -> dict[str, Any]:
    """The report on the only contract of a run."""
    pytester.makepyfile(test_it=CONTRACT.format(body=body))
    pytester.makeconftest("import pytest\n" + conftest)
    # What patches the suite must not outlive the run.
    alone = "-n2" in arguments or "cryptostore" in conftest
    start = pytester.runpytest_subprocess if alone else pytester.runpytest_inprocess
    ended = start(*STRICT, *arguments)
    report: dict[str, Any] = json.loads((pytester.path / "report.json").read_text())
    [contract] = report["contracts"]
    assert report["verdict"] == contract["verdict"]
    assert ended.ret == EXITS[contract["verdict"]] or ended.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    return dict(contract)


def why_not_passed(contract: dict[str, Any]) -> str:
    """The reason why ISOLATION-9 did not pass, in a run in which its neighbours did."""
    assert contract["verdict"] == "INCOMPLETE"
    assert "ISOLATION-9" in contract["incomplete"], f"it did pass: {contract['counts']}, {contract['failed']}"
    reason = str(contract["incomplete"]["ISOLATION-9"])
    assert contract["counts"]["passed"] == 2 or "fixture" in reason
    return reason
