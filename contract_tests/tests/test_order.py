"""The order in which the cases run: that of the contract, in which failures are to be taken."""

from __future__ import annotations

import pytest

from cryptostore_contract import StoreContract
from cryptostore_contract.manifest import functions_of
from cryptostore_contract.verdict import manifest

pytest_plugins = ["pytester"]

_MODULE = """
from cryptostore_contract import StoreContract
from cryptostore_contract.cases.isolation import IsolationCases
from cryptostore_contract.cases.scanning import ScanningCases

def test_before(): pass

class TestWhole(StoreContract):
    def test_mine(self): pass

class TestPart(IsolationCases, ScanningCases): pass

def test_behind(): pass
"""


def _collected(pytester: pytest.Pytester, *arguments: str) -> list[str]:
    """The names of what would run, in its order; the parts of a case are one."""
    pytester.makepyfile(test_it=_MODULE)
    lines = pytester.runpytest_inprocess("--collect-only", "-q", "-m", "soak or not soak", *arguments).outlines
    names = [line.partition("::")[2].partition("[")[0] for line in lines if line.startswith("test_it.py::")]
    return list(dict.fromkeys(names))


def _in_order(contract: str, *groups: str) -> list[str]:
    functions = functions_of(StoreContract)
    return [f"{contract}::{functions[case.id].__name__}" for case in manifest() if case.id.startswith(groups)]


def test_cases_run_in_the_order_of_the_contract_and_other_tests_stay_where_they_are(pytester: pytest.Pytester) -> None:
    names = _collected(pytester)
    assert (names[0], names[-1]) == ("test_before", "test_behind")
    # A class's own functions come last.
    assert names.index("TestWhole::test_mine") == len(manifest()) + 1
    assert [name for name in names[1:-1] if "mine" not in name] == [
        *_in_order("TestWhole", ""),
        *_in_order("TestPart", "SCANNING-", "ISOLATION-"),
    ]


def test_whoever_orders_tests_has_the_last_word(pytester: pytest.Pytester) -> None:
    usual = _collected(pytester)
    pytester.makeconftest("def pytest_collection_modifyitems(items): items.reverse()")
    assert _collected(pytester) == usual[::-1]
