"""What a mutant is, and the list of all that are loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

Break = Callable[[pytest.MonkeyPatch], None]

#: What has to be on the path of a process that is to find this package.
HOME: Final = str(Path(__file__).parents[1])


@dataclass(frozen=True)
class Mutant:
    """One bug, how to put it into a sound backend, and the IDs of the cases that each find it by themselves."""

    name: str
    #: The sound backend that is broken: its URL scheme.
    backend: str
    killed_by: tuple[str, ...]
    apply: Break

    @property
    def bug(self) -> str:
        """What is wrong, in a sentence."""
        return self.apply.__doc__ or ""


MUTANTS: Final[list[Mutant]] = []


def mutant(*killed_by: str, backend: str = "memory") -> Callable[[Break], Break]:
    """Make a function that breaks a backend one of the mutants."""

    def add(function: Break) -> Break:
        MUTANTS.append(Mutant(function.__name__, backend, killed_by, function))
        return function

    return add


def named(name: str) -> Mutant:
    """The mutant of this name."""
    return next(mutant for mutant in MUTANTS if mutant.name == name)
