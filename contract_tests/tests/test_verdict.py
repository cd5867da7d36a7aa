"""The verdict: however a case is kept from passing with the suite's own function, it is not PASS."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cryptostore_contract.verdict import Judged, Outcome, Verdict, manifest, verdict_on

pytest_plugins = ["pytester"]

_STRICT = ("--strict-markers", "-W", "error", "-p", "no:cacheprovider", "--cryptostore-report=report.json")

#: The whole contract on the in-memory model; `{body}` may spoil it.
_CONTRACT = """
import pytest
from cryptostore_contract import StoreContract, managed
from cryptostore_contract.memory import MemoryHarness

class TestMemory(StoreContract):
    @pytest.fixture
    def harness(self):
        yield from managed(MemoryHarness())
{body}
"""

#: The case at stake, which is ISOLATION-9, and the few that run beside it where the rest would only take time.
_CASE = "test_an_empty_database_has_no_accounts"
_FEW = ("-k", f"{_CASE} or not_found")


def run(pytester: pytest.Pytester, *arguments: str, body: str = "", conftest: str = "") -> dict[str, Any]:
    """The report on the only contract of a run."""
    pytester.makepyfile(test_it=_CONTRACT.format(body=body))
    pytester.makeconftest("import pytest\n" + conftest)
    start = pytester.runpytest_subprocess if "-n2" in arguments else pytester.runpytest_inprocess
    start(*_STRICT, *arguments)
    report: dict[str, Any] = json.loads((pytester.path / "report.json").read_text())
    [contract] = report["contracts"]
    assert report["verdict"] == contract["verdict"]
    return dict(contract)


def why_not_passed(contract: dict[str, Any]) -> str:
    """The reason why ISOLATION-9 did not pass, in a run in which its neighbours did."""
    assert contract["verdict"] == "INCOMPLETE"
    assert contract["counts"]["passed"] == 2
    return str(contract["incomplete"]["ISOLATION-9"])


def test_a_single_case_that_did_not_pass_makes_all_the_difference() -> None:
    passed = [Judged(case, Outcome.PASSED) for case in manifest()]
    assert verdict_on(passed) is Verdict.PASS
    for position, judged in enumerate(passed):
        for outcome, verdict in ((Outcome.INCOMPLETE, Verdict.INCOMPLETE), (Outcome.FAILED, Verdict.FAIL)):
            spoilt = [*passed[:position], Judged(judged.case, outcome), *passed[position + 1 :]]
            assert verdict_on(spoilt) is verdict
    assert verdict_on([Judged(case, Outcome.NOT_VERIFIED) for case in manifest()]) is Verdict.INCOMPLETE


def test_it_is_pass_when_every_case_passes(pytester: pytest.Pytester) -> None:
    contract = run(pytester, "-n2")
    assert contract["verdict"] == "PASS"
    assert contract["incomplete"] == {}
    assert contract["failed"] == []
    assert "RESTART-4" in contract["not_verified"]
    assert contract["soak"] != []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (f"    def {_CASE}(self): pass", "is not the suite's own function"),
        (f"    {_CASE} = None", "did not run"),
        (f"    @pytest.mark.skip(reason='no time')\n    def {_CASE}(self): pass", "skipped: no time"),
        (
            "    @pytest.fixture(autouse=True)\n"
            "    def hindered(self, request):\n"
            f"        if request.node.name == '{_CASE}': pytest.skip('no time')",
            "skipped: no time",
        ),
        (
            f"    import functools\n    @functools.wraps(StoreContract.{_CASE})\n    def {_CASE}(self, handles): pass",
            "is not the suite's own function",
        ),
    ],
    ids=["overridden", "removed", "overridden and skipped", "autouse fixture", "wrapped"],
)
def test_a_subclass_that_keeps_a_case_from_running_is_found_out(
    pytester: pytest.Pytester, body: str, reason: str
) -> None:
    assert why_not_passed(run(pytester, *_FEW, body=body)) == reason


_MODIFY = (
    "def pytest_collection_modifyitems(items):\n    item = next(item for item in items if item.name == '{case}')\n    "
)


@pytest.mark.parametrize(
    ("conftest", "reason"),
    [
        (_MODIFY.format(case=_CASE) + "items.remove(item)", "did not run"),
        (
            _MODIFY.format(case=_CASE) + "item.add_marker(pytest.mark.skip(reason='no time'))",
            "skipped: no time",
        ),
        (_MODIFY.format(case=_CASE) + "item.add_marker(pytest.mark.xfail(reason='known'))", "marked xfail: known"),
        (_MODIFY.format(case=_CASE) + "item.obj = lambda **fixtures: None", "is not the suite's own function"),
        (
            f"def pytest_runtest_setup(item):\n    if item.name == '{_CASE}': pytest.skip('no time')",
            "skipped: no time",
        ),
        (
            "def pytest_runtest_call(item):\n"
            f"    if item.name == '{_CASE}': item.get_closest_marker('timeout') and pytest.skip('no time')",
            "skipped: no time",
        ),
        (
            f"def pytest_pycollect_makeitem(collector, name, obj):\n    if name == '{_CASE}': return []",
            "did not run",
        ),
        (
            "@pytest.hookimpl(tryfirst=True)\n"
            f"def pytest_pyfunc_call(pyfuncitem):\n    return True if pyfuncitem.name == '{_CASE}' else None",
            "is not the suite's own function",
        ),
    ],
    ids=[
        "deselected",
        "skipped",
        "xfailed",
        "replaced",
        "skipped in setup",
        "skipped at run time",
        "not collected",
        "not called",
    ],
)
def test_a_conftest_that_keeps_a_case_from_passing_is_found_out(
    pytester: pytest.Pytester, conftest: str, reason: str
) -> None:
    assert why_not_passed(run(pytester, *_FEW, conftest=conftest)) == reason


@pytest.mark.parametrize(
    "arguments",
    [
        ("-k", "not_found"),
        (*_FEW, "--deselect", f"test_it.py::TestMemory::{_CASE}"),
        ("-n2", "-k", "not_found"),
        (
            "test_it.py::TestMemory::test_an_account_that_is_not_there_is_not_found",
            "test_it.py::TestMemory::test_an_account_deleted_under_its_owner_is_not_found",
        ),
    ],
    ids=["-k", "--deselect", "-k in two processes", "by name"],
)
def test_a_case_left_out_on_the_command_line_is_found_out(
    pytester: pytest.Pytester, arguments: tuple[str, ...]
) -> None:
    assert why_not_passed(run(pytester, *arguments)) == "did not run"


def test_a_marker_expression_that_leaves_cases_out_is_found_out(pytester: pytest.Pytester) -> None:
    contract = run(pytester, "-m", "not timeout")
    assert contract["verdict"] == "INCOMPLETE"
    assert contract["incomplete"]["ISOLATION-9"] == "did not run"
    assert contract["counts"]["passed"] == 0


def test_a_part_of_a_parametrized_case_is_not_the_case(pytester: pytest.Pytester) -> None:
    contract = run(pytester, "-k", "a_batch_after_a_gap_is_refused and not 1000")
    assert contract["incomplete"]["NUMBERING-3"] == "2 of its 3 parts passed"


def test_an_xpass_is_no_pass(pytester: pytest.Pytester) -> None:
    conftest = _MODIFY.format(case=_CASE) + "item.add_marker(pytest.mark.xfail(reason='known', strict=False))"
    assert why_not_passed(run(pytester, *_FEW, conftest=conftest)) == "marked xfail: known"


@pytest.mark.parametrize(
    "body",
    [
        f"        if request.node.name == '{_CASE}': raise RuntimeError('no database')\n        yield",
        f"        yield\n        if request.node.name == '{_CASE}': raise RuntimeError('cannot be removed')",
    ],
    ids=["setup", "teardown"],
)
def test_a_harness_that_fails_counts_as_a_failure(pytester: pytest.Pytester, body: str) -> None:
    fixture = f"    @pytest.fixture(autouse=True)\n    def part_of_the_harness(self, request):\n{body}"
    contract = run(pytester, *_FEW, body=fixture)
    assert contract["verdict"] == "FAIL"
    assert contract["failed"] == ["ISOLATION-9"]


def test_a_run_without_a_contract_is_incomplete(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_nothing(): pass")
    pytester.runpytest_inprocess(*_STRICT)
    report = json.loads((pytester.path / "report.json").read_text())
    assert (report["verdict"], report["contracts"]) == ("INCOMPLETE", [])
