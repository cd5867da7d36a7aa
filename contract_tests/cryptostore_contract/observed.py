"""What a run did with every case, as the plugin saw it; free of the suite's own imports, as the plugin is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import pytest

#: Where the `case` decorator keeps what it was told.
CASE_ATTRIBUTE: Final = "cryptostore_case"

#: The user properties by which a report carries its case through pytest-xdist: which case of which class it is, …
CASE_PROPERTY: Final = "cryptostore_case"
#: … what ran in its place and on what harness, …
CALL_PROPERTY: Final = "cryptostore_call"
#: … and what the database says it is.
SERVER_PROPERTY: Final = "cryptostore_server"
#: Why its harness could not be made.
HARNESS_PROPERTY: Final = "cryptostore_harness"


class Unverifiable(Exception):
    """Raised by a case that finds out as it runs what it needs and does not get, which the message names."""


#: A harness: its name, the scheme of its URL, and what it can do.
Description: TypeAlias = list[str]


@dataclass
class Node:
    """One test: a case, or a part of a parametrized one."""

    case_id: str
    #: What was not the suite's own in it.
    stranger: str = ""
    #: None as long as none was made.
    harness: Description | None = None
    #: The abilities that the harness lacks for it.
    missing: list[str] = field(default_factory=list)
    failed: bool = False
    passed: bool = False
    #: Why it neither passed nor failed, where pytest said it.
    hindrance: str = ""

    def add(self, report: pytest.TestReport) -> None:
        """Take in what setup, call or teardown came to."""
        if hasattr(report, "wasxfail"):
            self.hindrance = f"marked xfail: {report.wasxfail}".rstrip(": ")
        elif report.outcome == "failed":
            self.failed = True
        elif report.outcome == "skipped":
            self.hindrance = "skipped: " + _reason(report)
        elif report.outcome != "passed":
            self.hindrance = f"was {report.outcome}"
        elif report.when == "call":
            self.passed = True


@dataclass
class Observed:
    """One contract class of the run."""

    name: str
    server: str = ""
    #: Why no harness could be made, and for how many tests.
    unmade: Counter[str] = field(default_factory=Counter)
    nodes: dict[str, Node] = field(default_factory=dict)

    @property
    def description(self) -> Description:
        """The harness that most of the tests had; a class is about one."""
        had = Counter(tuple(node.harness) for node in self.nodes.values() if node.harness is not None)
        return list(had.most_common(1)[0][0]) if had else ["", ""]

    @property
    def harness(self) -> str:
        """Its name."""
        return self.description[0]

    @property
    def scheme(self) -> str:
        """The scheme of its URL."""
        return self.description[1]


class Observer:
    """The part of the plugin that listens."""

    def __init__(self) -> None:
        #: By node ID of the class.
        self.contracts: dict[str, Observed] = {}

    def expect(self, contract: str) -> Observed:
        """A contract class that was collected, whatever becomes of its cases."""
        return self.contracts.setdefault(contract, Observed(contract))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        told: dict[str, Any] = dict(report.user_properties)
        if CASE_PROPERTY not in told:
            return
        contract, case_id = told[CASE_PROPERTY]
        observed = self.expect(contract)
        node = observed.nodes.setdefault(report.nodeid, Node(case_id))
        node.add(report)
        if HARNESS_PROPERTY in told and report.when == "setup":
            observed.unmade[str(told[HARNESS_PROPERTY])] += 1
        if CALL_PROPERTY in told:
            node.stranger, node.harness, node.missing = told[CALL_PROPERTY]
        observed.server = str(told.get(SERVER_PROPERTY, observed.server))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        for contract in getattr(node, "workeroutput", {}).get(CASE_PROPERTY, []):
            self.expect(contract)


def _reason(report: pytest.TestReport) -> str:
    return (
        str(report.longrepr[2]).removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else "no reason given"
    )
