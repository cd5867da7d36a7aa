"""The cases of killed processes against stores that break only there."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from cryptostore_contract import StoreContract
from cryptostore_contract.crash_mutants import CRASH_MUTANTS, SCHEME
from cryptostore_contract.manifest import functions_of

pytest_plugins = ["pytester"]

_MODULE = """
import pytest
from cryptostore_contract import Ability, Harness, StoreContract, managed
from cryptostore_contract.crash_mutants import CRASH_MUTANTS, SCHEME

class FilesHarness(Harness):
    name = SCHEME
    abilities = frozenset({Ability.OTHER_PROCESS})

    def __init__(self, folder, bug):
        self.url = f"{SCHEME}:///{folder}/keys?bug={bug}"

    url = None

    def close(self):
        pass

def contract(bug):
    class Files(StoreContract):
        @pytest.fixture
        def harness(self, tmp_path):
            yield from managed(FilesHarness(tmp_path, bug))
    return Files

TestSound = contract("")
for mutant in CRASH_MUTANTS:
    globals()["Test_" + mutant.name] = contract(mutant.name)
"""


@pytest.fixture
def outcomes(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> dict[str, list[pytest.TestReport]]:
    """The reports of every mutant's case, and of the same cases on the sound files, by class."""
    install(tmp_path / "site", monkeypatch)
    functions = functions_of(StoreContract)
    path = pytester.makepyfile(test_killed=_MODULE)
    wanted = [("TestSound", mutant.killed_by) for mutant in CRASH_MUTANTS]
    wanted += [(f"Test_{mutant.name}", mutant.killed_by) for mutant in CRASH_MUTANTS]
    ids = [f"{path.name}::{name}::{functions[case_id].__name__}" for name, case_id in dict.fromkeys(wanted)]
    run = pytester.inline_run("-p", "no:cacheprovider", "-q", *ids)
    reports: dict[str, list[pytest.TestReport]] = defaultdict(list)
    for report in run.getreports("pytest_runtest_logreport"):
        if report.when == "call":
            reports[report.nodeid.split("::")[1]].append(report)
    return reports


def install(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process and those that it starts find the broken backend."""
    information = site / "broken-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    entry_point = f"[cryptostore.backends]\n{SCHEME} = cryptostore_contract.crash_mutants\n"
    (information / "entry_points.txt").write_text(entry_point)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site))


def test_each_mutant_is_killed_by_its_case_and_the_sound_files_by_none(
    outcomes: dict[str, list[pytest.TestReport]],
) -> None:
    survivors = [mutant.name for mutant in CRASH_MUTANTS if not any(map(asserted, outcomes[f"Test_{mutant.name}"]))]
    assert survivors == []
    assert {report.outcome for report in outcomes["TestSound"]} == {"passed"}


def asserted(report: pytest.TestReport) -> bool:
    """Whether a case failed, and by an assertion of its own, rather than by tripping over something."""
    message: str = getattr(getattr(report.longrepr, "reprcrash", None), "message", "")
    return message.startswith(("AssertionError", "assert "))


def test_mutants_have_names_of_their_own() -> None:
    assert len({mutant.name for mutant in CRASH_MUTANTS}) == len(CRASH_MUTANTS)
