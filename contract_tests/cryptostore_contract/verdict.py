"""The judgement on one contract class: what became of every case of the manifest, and what follows from it."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from .manifest import OWN, Case
from .observed import CASE_ATTRIBUTE, Node, Observed
from .suite import StoreContract

#: Why a case is incomplete of which there was no test.
DID_NOT_RUN: Final = "did not run"


class Outcome(enum.StrEnum):
    """What became of a case."""

    PASSED = "passed"
    FAILED = "failed"
    #: The harness lacks what the case needs, and nothing is known.
    NOT_VERIFIED = "not verified"
    #: Left to the soak.
    SOAK = "soak"
    #: Kept from passing with the suite's own function, in whatever way.
    INCOMPLETE = "incomplete"


class Verdict(enum.StrEnum):
    """What a run says about a backend."""

    #: Every case that the harness can run passed, with the suite's own function.
    PASS = "PASS"  # noqa: S105  # no password
    FAIL = "FAIL"
    #: Nothing failed, but a case that could have run did not run as it is.
    INCOMPLETE = "INCOMPLETE"


@dataclass(frozen=True)
class Judged:
    """One case, what became of it, and why where it did not pass."""

    case: Case
    outcome: Outcome
    reason: str = ""


def judge(observed: Observed) -> list[Judged]:
    """Every case of the manifest, in its order, as it came out in one contract class."""
    return [_judge_case(case, observed) for case in manifest()]


def manifest() -> list[Case]:
    """The cases of the whole contract, in the order of their groups and numbers."""
    order = [name.upper() for name in _groups()]

    def position(case: Case) -> tuple[int, int]:
        group, _, number = case.id.rpartition("-")
        return order.index(group), int(number)

    return sorted((getattr(function, CASE_ATTRIBUTE) for function in OWN.values()), key=position)


def overall(contracts: Iterable[Observed]) -> Verdict:
    """The verdict on all contract classes of a run: PASS only where there is one, and each has it."""
    verdicts = {verdict_on(judge(observed)) for observed in contracts}
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    return Verdict.PASS if verdicts == {Verdict.PASS} else Verdict.INCOMPLETE


def verdict_on(judged: list[Judged]) -> Verdict:
    """The verdict that follows."""
    outcomes = {each.outcome for each in judged}
    if Outcome.FAILED in outcomes:
        return Verdict.FAIL
    return Verdict.INCOMPLETE if Outcome.INCOMPLETE in outcomes or Outcome.PASSED not in outcomes else Verdict.PASS


def _groups() -> list[str]:
    return [group.__module__.rpartition(".")[2] for group in StoreContract.__bases__]


def _judge_case(case: Case, observed: Observed) -> Judged:
    nodes = [node for node in observed.nodes.values() if node.case_id == case.id]
    if any(node.failed for node in nodes):
        return Judged(case, Outcome.FAILED)
    if not nodes:
        soak = _is_soak(OWN[case.id])
        return Judged(case, Outcome.SOAK) if soak else Judged(case, Outcome.INCOMPLETE, DID_NOT_RUN)
    if hindrance := next(filter(None, map(_hindrance, nodes)), _another_harness(observed, nodes)):
        return Judged(case, Outcome.INCOMPLETE, hindrance)
    if missing := sorted({ability for node in nodes for ability in node.missing}):
        return Judged(case, Outcome.NOT_VERIFIED, f"needs {', '.join(missing)}")
    return _count_parts(case, nodes)


def _hindrance(node: Node) -> str:
    if node.missing:
        return ""
    # A skip is a better reason than what a skipped function could not do.
    return node.hindrance or node.stranger


def _another_harness(observed: Observed, nodes: list[Node]) -> str:
    """A case that was tried on one database says nothing about another."""
    odd = (node.harness for node in nodes if node.harness not in (None, observed.description))
    return next((f"ran on another harness than the rest: {', '.join(harness or [])}" for harness in odd), "")


def _count_parts(case: Case, nodes: list[Node]) -> Judged:
    passed, parts = sum(node.passed for node in nodes), _parts(OWN[case.id])
    if passed < max(parts, len(nodes)):
        return Judged(case, Outcome.INCOMPLETE, f"{passed} of its {max(parts, len(nodes))} parts passed")
    return Judged(case, Outcome.PASSED)


def _parts(function: Callable[..., None]) -> int:
    """Into how many tests a case is parametrized."""
    return math.prod(len(mark.args[1]) for mark in _marks(function) if mark.name == "parametrize")


def _is_soak(function: Callable[..., None]) -> bool:
    return any(mark.name == "soak" for mark in _marks(function))


def _marks(function: Callable[..., None]) -> list[Any]:
    return list(getattr(function, "pytestmark", []))
