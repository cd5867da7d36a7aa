"""The suite against broken stores: each bug is found, by an assertion of the case that is named for it."""

from __future__ import annotations

from collections import defaultdict

import pytest

from cryptostore_contract import StoreContract
from cryptostore_contract.manifest import cases_of, functions_of
from cryptostore_contract.mutants import MUTANTS

pytest_plugins = ["pytester"]

_MODULE = """
import pytest
from cryptostore_contract import StoreContract, managed
from cryptostore_contract.memory import MemoryHarness
from cryptostore_contract.mutants import MUTANTS

def contract(name, apply):
    class Mutated(StoreContract):
        @pytest.fixture
        def harness(self, monkeypatch):
            with monkeypatch.context() as patch:
                apply(patch)
                yield from managed(MemoryHarness())
    Mutated.__name__ = Mutated.__qualname__ = name
    return Mutated

TestSound = contract("TestSound", lambda patch: None)
for mutant in MUTANTS:
    globals()["Test_" + mutant.name] = contract("Test_" + mutant.name, mutant.apply)
"""


@pytest.fixture
def outcomes(pytester: pytest.Pytester) -> dict[str, list[pytest.TestReport]]:
    """The reports of every mutant's case, and of the same cases on the sound model, by class."""
    functions = functions_of(StoreContract)
    path = pytester.makepyfile(test_broken=_MODULE)
    wanted = [("TestSound", mutant.killed_by) for mutant in MUTANTS]
    wanted += [(f"Test_{mutant.name}", mutant.killed_by) for mutant in MUTANTS]
    ids = [f"{path.name}::{name}::{functions[case_id].__name__}" for name, case_id in dict.fromkeys(wanted)]
    run = pytester.inline_run("-p", "no:cacheprovider", "-q", *ids)
    reports: dict[str, list[pytest.TestReport]] = defaultdict(list)
    for report in run.getreports("pytest_runtest_logreport"):
        if report.when == "call":
            reports[report.nodeid.split("::")[1]].append(report)
    return reports


def test_each_mutant_is_killed_by_its_case_and_the_sound_model_by_none(
    outcomes: dict[str, list[pytest.TestReport]],
) -> None:
    survivors = [mutant.name for mutant in MUTANTS if not any(map(asserted, outcomes[f"Test_{mutant.name}"]))]
    assert survivors == []
    assert {report.outcome for report in outcomes["TestSound"]} == {"passed"}


def asserted(report: pytest.TestReport) -> bool:
    """Whether a case failed, and by an assertion of its own, rather than by tripping over something."""
    message: str = getattr(getattr(report.longrepr, "reprcrash", None), "message", "")
    return message.startswith(("AssertionError", "assert ", "Failed: "))


def test_mutants_have_names_of_their_own_and_cases_that_exist() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert {mutant.killed_by for mutant in MUTANTS} <= cases_of(StoreContract).keys()
