"""The pytest plugin: what a harness cannot do is reported as not verified, never as passed.

Kept free of the suite's own imports: pytest loads it in every run in which this distribution is installed.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from .manifest import Case

#: Where the `case` decorator keeps what it was told.
CASE_ATTRIBUTE: Final = "cryptostore_case"

#: The user property by which a report carries its case through pytest-xdist.
PROPERTY: Final = "cryptostore_case"

_SOAK_KEY: Final = "cryptostore_soak_cases"


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker and begin the report."""
    config.addinivalue_line("markers", "soak: takes hours rather than seconds; runs only with -m soak")
    config.pluginmanager.register(ContractReport(), "cryptostore-contract-report")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the suite's soak cases to `-m soak`; whatever else carries that marker is none of our business."""
    if "soak" in config.option.markexpr:
        return
    soak = [item for item in items if _case_of(item) is not None and item.get_closest_marker("soak") is not None]
    if soak:
        items[:] = [item for item in items if item not in soak]
        config.hook.pytest_deselected(items=soak)
    if hasattr(config, "workeroutput"):
        config.workeroutput[_SOAK_KEY] = len(soak)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Tell the report which case this is, and skip one that the harness cannot run."""
    case = _case_of(item)
    if case is None:
        return
    harness = getattr(item, "funcargs", {})["harness"]
    # Plain texts: the report crosses processes, and execnet takes no enums.
    missing = sorted(ability.value for ability in case.needs - harness.abilities)
    item.user_properties.append((PROPERTY, [case.id, harness.name, missing]))
    if missing:
        pytest.skip(f"not verified: {case.id} needs {', '.join(missing)}, which the harness {harness.name!r} lacks")


def _case_of(item: pytest.Item) -> Case | None:
    return getattr(getattr(item, "function", None), CASE_ATTRIBUTE, None)


class ContractReport:
    """Collects what became of every case, and says it at the end of the run."""

    def __init__(self) -> None:
        #: By harness and case ID, what its parts (a case may be parametrized) came to.
        self._outcomes: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        self._missing: dict[str, dict[str, list[str]]] = defaultdict(dict)
        self._soak = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == PROPERTY:
                self._add(report, value)

    def _add(self, report: pytest.TestReport, told: Any) -> None:
        case_id, harness, missing = told
        if missing:
            self._missing[harness][case_id] = missing
        elif report.when == "call" or not report.passed:
            self._outcomes[harness][case_id].add(report.outcome)

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self._soak += sum(_case_of(item) is not None and item.get_closest_marker("soak") is not None for item in items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        # Every worker of pytest-xdist deselects the same cases, and only the workers do.
        self._soak = max(self._soak, getattr(node, "workeroutput", {}).get(_SOAK_KEY, 0))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        harnesses = sorted({*self._outcomes, *self._missing})
        if not harnesses and not self._soak:
            return
        terminalreporter.section("cryptostore contract")
        for harness in harnesses:
            self._summarize(terminalreporter, harness)
        if self._soak:
            terminalreporter.write_line(f"not run: {self._soak} soak cases; run them with -m soak")

    def _summarize(self, terminalreporter: pytest.TerminalReporter, harness: str) -> None:
        missing = self._missing[harness]
        outcomes = self._outcomes[harness].values()
        passed = sum(parts == {"passed"} for parts in outcomes)
        failed = sum("failed" in parts for parts in outcomes)
        line = f"{harness}: {passed} cases passed, {failed} failed, {len(missing)} not verified"
        if other := len(outcomes) - passed - failed:
            line += f", {other} skipped"
        terminalreporter.write_line(line)
        for case_id in sorted(missing):
            terminalreporter.write_line(f"  not verified: {case_id} (needs {', '.join(missing[case_id])})")
