"""The pytest plugin: what a run did with every case of the contract, and what verdict follows from it.

Kept free of the suite's own imports: pytest loads it in every run in which this distribution is installed.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import _pytest
import pytest

from .observed import (
    CALL_PROPERTY,
    CASE_ATTRIBUTE,
    CASE_PROPERTY,
    HARNESS_PROPERTY,
    Description,
    Observer,
    Unverifiable,
)

if TYPE_CHECKING:
    from .harness import Harness
    from .manifest import Case

#: How a run ends in which nothing failed, and whose verdict is INCOMPLETE; pytest itself uses 0 to 5.
EXIT_INCOMPLETE: Final = 6

_SUITE: Final = "cryptostore_contract.suite"
#: How the name of a report ends.
FORMATS: Final = (".json", ".md")
#: Where the fixtures come from that cases are given, all but the harness.
_HOMES: Final = (Path(__file__).parent, Path(_pytest.__file__).parent)

#: Words on the command line that say that not everything is to run. What begins with a short one is it, with its value.
_NARROWING_SHORT: Final = ("-k", "-m", "-x")
_NARROWING: Final = frozenset(
    {
        *("--exitfirst", "--maxfail", "--deselect", "--ignore", "--ignore-glob", "--setup-only", "--setup-plan"),
        *("--co", "--collect-only", "--collectonly", "--lf", "--last-failed"),
        *("--sw", "--stepwise", "--sw-skip", "--stepwise-skip"),
    }
)


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
    if path is not None and Path(path).suffix not in FORMATS:
        raise pytest.UsageError(f"--cryptostore-report={path}: the name must end in {' or '.join(FORMATS)}")
    if path is not None and not hasattr(config, "workerinput"):
        if not Path(path).absolute().parent.is_dir():
            raise pytest.UsageError(f"--cryptostore-report={path}: the folder does not exist; create it")
        # A run that is killed must not leave the report on an earlier one.
        Path(path).unlink(missing_ok=True)
    config.pluginmanager.register(ContractPlugin(config, path), "cryptostore-contract")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Note every case before anybody can take it out of the run."""
    case = _case_of(item)
    if case is not None and item.parent is not None:
        item.user_properties.append((CASE_PROPERTY, [item.parent.nodeid, case.id]))
        # For -k: "RECORDS-" is the group, "RECORDS-1" begins other IDs as well, and "RECORDS-1." is one case.
        item.extra_keyword_matches.add(f"{case.id}.")
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


def _sort_cases(items: list[pytest.Item]) -> None:
    """Put the cases of each contract class into the contract's order, in the places that they have among the rest."""
    from .verdict import manifest  # only where there are cases

    ranks = {case.id: rank for rank, case in enumerate(manifest())}
    noted: dict[pytest.Item, Any] = {item: dict(item.user_properties).get(CASE_PROPERTY, ["", ""]) for item in items}
    for contract in {contract for contract, _ in noted.values() if contract}:
        places = [place for place, item in enumerate(items) if noted[item][0] == contract]
        ordered = sorted((items[place] for place in places), key=lambda item: ranks.get(noted[item][1], len(ranks)))
        for place, item in zip(places, ordered, strict=True):
            items[place] = item


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    """Note what a harness is made of and could not be made."""
    try:
        return (yield)
    except Exception as error:
        if fixturedef.argname == "harness" or not _is_from_home(fixturedef.func):
            _plugin_of(request.config).unmade[error] = f"{fixturedef.argname}: {type(error).__name__}: {error}"
        raise


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Tell once why a harness could not be made, and afterwards only that it was the same again."""
    plugin = _plugin_of(item.config)
    try:
        return (yield)
    except Exception as error:
        # pytest raises the same again where what failed is for more than one test.
        reason = plugin.unmade.get(error)
        if _case_of(item) is None or reason is None:
            raise
        item.user_properties.append((HARNESS_PROPERTY, reason))
        if reason not in plugin.told:
            plugin.told.add(reason)
            raise
    pytest.fail(f"the harness could not be made, as before: {reason}", pytrace=False)


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Say by kind, key and field how records differ, whose reprs show no values."""
    if op != "==" or _SUITE not in sys.modules:
        return None
    from .comparing import explained

    return explained(left, right)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Skip a case that the harness cannot run, and note what ran in the place of the others."""
    case = _case_of(item)
    if case is None:
        return (yield)
    # What stands in a case's place may do without.
    harness: Harness | None = getattr(item, "funcargs", {}).get("harness")
    missing = _missing(case, harness) if harness else []
    told: list[Any] = ["", _described(harness) if harness else None, missing]
    item.user_properties.append((CALL_PROPERTY, told))
    if missing:
        pytest.skip(_unverified(case, told))
    told[0] = _stranger_in(item, case)
    try:
        return (yield)
    except Unverifiable as lacking:
        # What stands in a case's place may not spare itself.
        if told[0]:
            raise
        missing.append(str(lacking))
        pytest.skip(_unverified(case, told))
    finally:
        # A conftest can make pytest call nothing at all, or swallow what is raised.
        # Asked whatever else is wrong: what is not asked for now would speak for the case's next test.
        completed = _was_completed(case)
        told[0] = told[0] or ("" if completed else "did not run to its end")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> Generator[None, object, object]:
    """Note every contract class, though nothing of it may be collected in the end."""
    if isinstance(obj, type) and collector.istestclass(obj, name) and _is_contract(obj):
        _plugin_of(collector.config).observer.expect(f"{collector.nodeid}::{name}")
    return (yield)


def _case_of(item: pytest.Item) -> Case | None:
    """The case that an item is, or, in a contract class, the one in whose place it stands."""
    declared: Case | None = getattr(getattr(item, "function", None), CASE_ATTRIBUTE, None)
    if declared is None and _is_contract(getattr(item, "cls", None)):
        from .manifest import OWN

        name = getattr(item, "originalname", "")
        replaced = next((function for function in OWN.values() if function.__name__ == name), None)
        declared = getattr(replaced, CASE_ATTRIBUTE, None)
    return declared


def _is_contract(cls: type | None) -> bool:
    suite = sys.modules.get(_SUITE)
    return suite is not None and cls is not None and issubclass(cls, suite.StoreContract)


def _missing(case: Case, harness: Harness) -> list[str]:
    """What a case needs and does not get."""
    from .harness import lacks

    missing = sorted(ability.value for ability in case.needs - harness.abilities)
    if case.unless_denied is not None and lacks(harness, case.unless_denied):
        missing.append(f"a backend that {case.unless_denied.value}")
    return missing


def _unverified(case: Case, told: list[Any]) -> str:
    """Why a case is skipped, from what is told of its call."""
    _, description, missing = told
    return f"not verified: {case.id} needs {', '.join(missing)}, which the harness {description[0]!r} lacks"


def _described(harness: Harness) -> Description:
    """A harness in plain texts: the report crosses processes, and execnet takes no enums."""
    return [harness.name, harness.url.partition(":")[0].lower(), *sorted(one.value for one in harness.abilities)]


def _stranger_in(item: pytest.Item, case: Case) -> str:
    """What in a test is not the suite's own: its function, or what it is given beside the harness."""
    from .manifest import OWN  # a run that has a case in it has loaded the suite

    if getattr(item, "function", None) is not OWN.get(case.id):
        return "is not the suite's own function"
    if sys.flags.optimize:
        return "ran without assertions, by python -O"
    for name, function in _given(item):
        if not _is_from_home(function):
            return f"its fixture {name!r} is not the suite's own"
    return ""


def _given(item: pytest.Item) -> Iterator[tuple[str, Any]]:
    """What a test is given, and what that is made of, all but the harness: names, and the functions that make them."""
    fixtures: Any = getattr(item, "_fixtureinfo", None)
    names = list(fixtures.argnames) if fixtures is not None else []
    for name in names:
        defined = fixtures.name2fixturedefs.get(name)
        if name == "harness" or not defined:
            continue
        yield name, defined[-1].func
        names += [one for one in defined[-1].argnames if one not in names]


def _is_from_home(function: Any) -> bool:
    # Not unwrapped: what wraps a fixture of ours is somebody else's.
    code = getattr(function, "__code__", None)
    return code is not None and any(Path(code.co_filename).is_relative_to(home) for home in _HOMES)


def _was_completed(case: Case) -> bool:
    """Whether the case's function has come to its end since this was last asked."""
    from .manifest import COMPLETED

    completed = case.id in COMPLETED
    COMPLETED.discard(case.id)
    return completed


def _is_narrowed(config: pytest.Config) -> bool:
    """Whether the command line selects some of the tests."""
    given = [str(argument) for argument in config.invocation_params.args]
    return any(
        "::" in argument or argument.startswith(_NARROWING_SHORT) or argument.partition("=")[0] in _NARROWING
        for argument in given
    )


def _plugin_of(config: pytest.Config) -> ContractPlugin:
    plugin = config.pluginmanager.get_plugin("cryptostore-contract")
    assert isinstance(plugin, ContractPlugin)
    return plugin


class ContractPlugin:
    """Has the run observed, and says at its end what came of it."""

    def __init__(self, config: pytest.Config, path: str | None) -> None:
        self.observer = Observer()
        #: Why harnesses could not be made, by their errors, and those of the reasons that were told.
        self.unmade: dict[Exception, str] = {}
        self.told: set[str] = set()
        self._path = path
        config.pluginmanager.register(self.observer, "cryptostore-contract-observer")

    # First, so that plugins that order tests come after it.
    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self.observer.contracts:
            _sort_cases(items)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        workeroutput: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
        if workeroutput is not None:
            workeroutput[CASE_PROPERTY] = list(self.observer.contracts)
            return
        if self._path is not None:
            from .report import write_report  # only where there is one to write

            write_report(Path(self._path), self.observer.contracts.values())
        if session.exitstatus == pytest.ExitCode.OK and self._must_be_complete(session.config):
            from .verdict import Verdict, overall

            if overall(self.observer.contracts.values()) is Verdict.INCOMPLETE:
                session.exitstatus = EXIT_INCOMPLETE

    def _must_be_complete(self, config: pytest.Config) -> bool:
        """Whether an incomplete verdict is a failure: if a report is written, or if no tests were selected."""
        return self._path is not None or bool(self.observer.contracts and not _is_narrowed(config))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.observer.contracts or terminalreporter.config.option.collectonly:
            return
        from .report import terminal_lines

        terminalreporter.section("cryptostore contract")
        narrowed = _is_narrowed(terminalreporter.config)
        for line in terminal_lines(self.observer.contracts.values(), narrowed=narrowed):
            terminalreporter.write_line(line)
        if self._path is not None:
            terminalreporter.write_line(f"report: {self._path}")
