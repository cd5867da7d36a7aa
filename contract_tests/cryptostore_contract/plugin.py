"""The pytest plugin: what a run did with every case of the contract, and what verdict follows from it.

Kept free of the suite's own imports: pytest loads it in every run in which this distribution is installed.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from .observed import CALL_PROPERTY, CASE_PROPERTY, Observer

if TYPE_CHECKING:
    from .harness import Harness
    from .manifest import Case

#: Where the `case` decorator keeps what it was told.
CASE_ATTRIBUTE: Final = "cryptostore_case"

_SUITE: Final = "cryptostore_contract.suite"
_FORMATS: Final = (".json", ".md")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the report be written to a file."""
    parser.getgroup("cryptostore contract").addoption(
        "--cryptostore-report",
        metavar="PATH",
        help="write the contract's report to PATH, which ends in .json or .md",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker and begin to observe. Raises UsageError for a report that could not be written."""
    config.addinivalue_line("markers", "soak: takes hours rather than seconds; runs only with -m soak")
    path = config.getoption("cryptostore_report")
    if path is not None and Path(path).suffix not in _FORMATS:
        raise pytest.UsageError(f"--cryptostore-report={path}: the name must end in {' or '.join(_FORMATS)}")
    config.pluginmanager.register(ContractPlugin(config, path), "cryptostore-contract")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Note every case before anybody can take it out of the run."""
    case = _case_of(item)
    if case is not None and item.parent is not None:
        item.user_properties.append((CASE_PROPERTY, [item.parent.nodeid, case.id]))
        _plugin_of(item.config).observer.expect(item.parent.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the suite's soak cases to `-m soak`; whatever else carries that marker is none of our business."""
    if "soak" in config.option.markexpr:
        return
    soak = [item for item in items if _case_of(item) is not None and item.get_closest_marker("soak") is not None]
    if soak:
        items[:] = [item for item in items if item not in soak]
        config.hook.pytest_deselected(items=soak)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Skip a case that the harness cannot run, and note what ran in the place of the others."""
    case = _case_of(item)
    if case is None:
        return (yield)
    # What stands in a case's place may do without.
    harness: Harness | None = getattr(item, "funcargs", {}).get("harness")
    # Plain texts: the report crosses processes, and execnet takes no enums.
    missing = sorted(ability.value for ability in case.needs - harness.abilities) if harness else []
    place = [harness.name, harness.url.partition(":")[0].lower()] if harness else ["", ""]
    told = [False, *place, missing]
    item.user_properties.append((CALL_PROPERTY, told))
    if missing:
        pytest.skip(f"not verified: {case.id} needs {', '.join(missing)}, which the harness {place[0]!r} lacks")
    own = _is_the_suites_own(item, case)
    try:
        return (yield)
    finally:
        told[0] = own and _was_called(case)


def _case_of(item: pytest.Item) -> Case | None:
    """The case that an item is, or, in a contract class, the one in whose place it stands."""
    declared: Case | None = getattr(getattr(item, "function", None), CASE_ATTRIBUTE, None)
    suite = sys.modules.get(_SUITE)
    if declared is None and suite is not None and issubclass(getattr(item, "cls", None) or object, suite.StoreContract):
        replaced = getattr(suite.StoreContract, getattr(item, "originalname", ""), None)
        declared = getattr(replaced, CASE_ATTRIBUTE, None)
    return declared


def _is_the_suites_own(item: pytest.Item, case: Case) -> bool:
    from .manifest import functions_of  # a run that has a case in it has loaded the suite
    from .suite import StoreContract

    return getattr(item, "function", None) is functions_of(StoreContract).get(case.id)


def _was_called(case: Case) -> bool:
    """Whether the case's function ran since this was last asked: a conftest can make pytest call nothing at all."""
    from .manifest import CALLED

    called = case.id in CALLED
    CALLED.discard(case.id)
    return called


def _plugin_of(config: pytest.Config) -> ContractPlugin:
    plugin = config.pluginmanager.get_plugin("cryptostore-contract")
    assert isinstance(plugin, ContractPlugin)
    return plugin


class ContractPlugin:
    """Has the run observed, and says at its end what came of it."""

    def __init__(self, config: pytest.Config, path: str | None) -> None:
        self.observer = Observer()
        self._path = path
        config.pluginmanager.register(self.observer, "cryptostore-contract-observer")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        workeroutput: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
        if workeroutput is not None:
            workeroutput[CASE_PROPERTY] = list(self.observer.contracts)
        elif self._path is not None:
            from .report import write_report  # only where there is one to write

            write_report(Path(self._path), self.observer.contracts.values())

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.observer.contracts:
            return
        from .report import terminal_lines

        terminalreporter.section("cryptostore contract")
        for line in terminal_lines(self.observer.contracts.values()):
            terminalreporter.write_line(line)
        if self._path is not None:
            terminalreporter.write_line(f"report: {self._path}")
