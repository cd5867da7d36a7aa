"""Cases of the contract against a mutant, in a pytest run of their own inside a test."""

from __future__ import annotations

import gc
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import Phase, settings

import cryptostore_contract
from cryptostore_contract import Harness, StoreContract, managed
from cryptostore_contract.manifest import functions_of
from cryptostore_contract.observed import CASE_PROPERTY

from .idle import KILL_NONE
from .registry import Mutant

#: A folder to leave the full table in, a file for each mutant, for `contract_mutants.table`.
TABLE_VARIABLE: Final = "CRYPTOSTORE_TEST_MUTATION_TABLE"

#: Where an assertion may stand: in a case, in what it looks at rows with, or in what watches its threads. That a child
#: process died says nothing.
_OF_THE_SUITE: Final = ("/cases/", "/golden.py", "/raw.py", "/waiting.py")

#: A mutant that holds a lock for ever hangs every case, a minute each. The first few tell all.
_MOST_TIMEOUTS: Final = 3

#: Seconds for each case. Those that are named for a mutant do not hang, but machines may be busy.
_NAMED_TIMEOUT: Final = "--timeout=240"
_ANY_TIMEOUT: Final = "--timeout=60"

_TIMEOUT: Final = "Failed: Timeout"

_MODULE: Final = """
import pytest
from cryptostore_contract import suite

class Chosen({groups}):
    pass

class TestSound(Chosen):
    @pytest.fixture
    def harness(self, sound_harness):
        return sound_harness

class TestBroken(Chosen):
    @pytest.fixture
    def harness(self, broken_harness):
        return broken_harness
"""

#: By backend and case: where the sound store has passed in this process, it need not be asked again.
_sound: Final[set[tuple[str, str]]] = set()


class Trial:
    """A plugin for one run of cases on a sound backend and on a mutant of it."""

    def __init__(self, mutant: Mutant, new_harness: Callable[[], Harness]) -> None:
        self.mutant = mutant
        self.new_harness = new_harness
        self.failed: dict[str, list[pytest.TestReport]] = {"TestSound": [], "TestBroken": []}
        self.passed: set[str] = set()
        self.timeouts = 0
        self.not_tried: set[str] = set()

    @pytest.fixture
    def sound_harness(self) -> Iterator[Harness]:
        """The backend as it is."""
        yield from managed(self.new_harness())

    @pytest.fixture
    def broken_harness(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Harness]:
        """The backend with its bug."""
        with monkeypatch.context() as patch:
            self.mutant.apply(patch)
            yield from managed(self.new_harness())

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Begin with the cases that are named for the mutant, so that they are tried in any event."""
        items.sort(key=lambda item: _case_of(item) not in self.mutant.killed_by)

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Do no more than is needed: one killed part kills the case."""
        if _case_of(item) in self.killers() and "TestBroken" in item.nodeid:
            pytest.skip("killed")
        if self.timeouts >= _MOST_TIMEOUTS and _case_of(item) not in self.mutant.killed_by:
            self.not_tried.add(_case_of(item))
            pytest.skip("hangs")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note who failed."""
        if report.failed:
            self.failed[report.nodeid.split("::")[1]].append(report)
            self.timeouts += _message_of(report).startswith(_TIMEOUT)
        elif report.passed and report.when == "call" and "TestSound" in report.nodeid:
            self.passed.add(_case_of(report))

    def killers(self) -> set[str]:
        """The cases that killed the mutant, by an assertion of their own."""
        return {_case_of(report) for report in self.failed["TestBroken"] if asserted(report)}


def asserted(report: pytest.TestReport) -> bool:
    """Whether a case failed by an assertion of its own, rather than by tripping over something."""
    message = _message_of(report)
    if report.when != "call" or message.startswith(_TIMEOUT):
        return False
    home = str(Path(cryptostore_contract.__file__).parent)
    path: str = getattr(getattr(report.longrepr, "reprcrash", None), "path", "")
    at_home = path.startswith(home) and any(place in path for place in _OF_THE_SUITE)
    return at_home and message.startswith(("AssertionError", "assert ", "Failed: "))


def _message_of(report: pytest.TestReport) -> str:
    crash: Any = getattr(report.longrepr, "reprcrash", None)
    return "" if crash is None else str(crash.message)


def _case_of(noted: pytest.TestReport | pytest.Item) -> str:
    case: Any = dict(noted.user_properties)[CASE_PROPERTY]
    return str(case[1])


def check_named(pytester: pytest.Pytester, mutant: Mutant, new_harness: Callable[[], Harness]) -> None:
    """Each of the mutant's cases kills it, and the sound store passes them in the same run."""
    trial = Trial(mutant, new_harness)
    asked = [("TestSound", name) for name in mutant.killed_by if (mutant.backend, name) not in _sound]
    _run(pytester, trial, [*asked, *(("TestBroken", case_id) for case_id in mutant.killed_by)], _NAMED_TIMEOUT)
    assert [report.longreprtext for report in trial.failed["TestSound"]] == []
    _sound.update((mutant.backend, case_id) for case_id in trial.passed)
    assert {(mutant.backend, case_id) for case_id in mutant.killed_by} <= _sound
    survived = set(mutant.killed_by) - trial.killers()
    assert survived == set(), [report.longreprtext for report in trial.failed["TestBroken"]]


def check_all(
    pytester: pytest.Pytester, mutant: Mutant, new_harness: Callable[[], Harness], among: Iterable[str] = ()
) -> None:
    """No case that is said to kill none kills the mutant; every case is tried, where no others are named."""
    trial = Trial(mutant, new_harness)
    _run(pytester, trial, [("TestBroken", case_id) for case_id in among], _ANY_TIMEOUT)
    if folder := os.environ.get(TABLE_VARIABLE):
        kills = {
            "mutant": mutant.name,
            "backend": mutant.backend,
            "killed by": sorted(trial.killers()),
            "not tried": sorted(trial.not_tried),
        }
        Path(folder, f"{mutant.backend}-{mutant.name}.json").write_text(json.dumps(kills))
    assert set(mutant.killed_by) <= trial.killers()
    assert trial.killers() & KILL_NONE.keys() == set()


def _run(pytester: pytest.Pytester, trial: Trial, chosen: Iterable[tuple[str, str]], *options: str) -> None:
    """Run cases, given as class and ID; none for all of them on the mutant alone."""
    functions = functions_of(StoreContract)
    names = [(name, functions[case_id].__name__) for name, case_id in chosen]
    # All groups cost a second to collect.
    groups = [one for one in StoreContract.__bases__ if any(hasattr(one, case) for _, case in names)] or [StoreContract]
    path = pytester.makepyfile(test_trial=_MODULE.format(groups=", ".join(f"suite.{one.__name__}" for one in groups)))
    nodes = [f"{path.name}::{name}::{case}" for name, case in names] or [f"{path.name}::TestBroken"]
    with _quick_hypothesis(), _nothing_left_open():
        pytester.inline_run("-p", "no:cacheprovider", "-q", *options, *nodes, plugins=[trial])


@contextmanager
def _quick_hypothesis() -> Iterator[None]:
    """Without the shortest example of a bug that is known, for which hypothesis would spend minutes."""
    settings.register_profile("usual", settings())
    settings.register_profile("quick", phases=[Phase.generate], database=None)
    settings.load_profile("quick")
    try:
        yield
    finally:
        # The process goes on with other tests.
        settings.load_profile("usual")


@contextmanager
def _nothing_left_open() -> Iterator[None]:
    """A case does not close what it never expected to be opened. Python does, and says so while other tests run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()
