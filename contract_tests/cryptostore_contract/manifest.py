"""The suite's table of contents: which case checks which clauses, and what it needs from a harness."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from cryptostore import Backend, Capability, CryptoStore, Database

from .harness import Ability, Harness
from .observed import CASE_ATTRIBUTE

#: Whose docstrings hold the clauses: what a backend writes, and what its users see.
INTERFACE: Final = (Database, Backend, CryptoStore)

CLAUSE: Final = re.compile(r"\[([A-Z]+-\d+)\]")

#: The cases whose functions came to their end in this process; the plugin takes each out when its test is over.
COMPLETED: Final[set[str]] = set()

#: The suite's own functions by case ID, as they were defined: what a class has under their names can be changed.
OWN: Final[dict[str, Callable[..., None]]] = {}

_HOME: Final = f"{__package__}.cases."

F = TypeVar("F", bound=Callable[..., None])


@dataclass(frozen=True)
class Case:
    """One case: its stable ID, the clauses of the interface that it checks, and the abilities that it needs."""

    id: str
    checks: frozenset[str]
    needs: frozenset[Ability]
    #: What a backend may deny, and is not asked for then.
    unless_denied: Capability | None = None


def case(
    case_id: str,
    *,
    checks: tuple[str, ...],
    needs: tuple[Ability, ...] = (),
    unless_denied: Capability | None = None,
) -> Callable[[F], F]:
    """Make a test function a case of the contract. Stands above every other decorator."""

    def attach(function: F) -> F:
        @functools.wraps(function)
        def noted(*arguments: Any, **named: Any) -> None:
            function(*arguments, **named)
            COMPLETED.add(case_id)

        setattr(noted, CASE_ATTRIBUTE, Case(case_id, frozenset(checks), frozenset(needs), unless_denied))
        if function.__module__.startswith(_HOME):
            OWN[case_id] = noted
        return cast(F, noted)

    return attach


def cases_of(contract: type) -> dict[str, Case]:
    """The cases of a contract class by ID, inherited ones included. Raises ValueError for an ID used twice."""
    return {case_id: getattr(function, CASE_ATTRIBUTE) for case_id, function in functions_of(contract).items()}


def functions_of(contract: type) -> dict[str, Callable[..., None]]:
    """The test functions of a contract class by case ID. Raises ValueError for an ID used twice."""
    found: dict[str, Callable[..., None]] = {}
    for name in dir(contract):
        function: Any = getattr(contract, name)
        declared = getattr(function, CASE_ATTRIBUTE, None)
        if declared is None:
            continue
        if declared.id in found:
            raise ValueError(f"two cases have the ID {declared.id}")
        found[declared.id] = function
    return found


def not_verified(contract: type, harness: type[Harness]) -> frozenset[str]:
    """The IDs of the cases that this harness cannot run, to be held by a test."""
    return frozenset(name for name, declared in cases_of(contract).items() if not declared.needs <= harness.abilities)


def clauses() -> frozenset[str]:
    """The IDs of every clause in the docstrings of `INTERFACE`."""
    texts = [text for owner in INTERFACE for text in docstrings(owner)]
    return frozenset(clause for text in texts for clause in CLAUSE.findall(text))


def docstrings(owner: type) -> list[str]:
    """The docstrings of a class and its members."""
    return [documented.__doc__ or "" for documented in (owner, *vars(owner).values())]
