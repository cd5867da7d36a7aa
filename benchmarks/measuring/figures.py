"""Figures, and whether one of this checkout is worse than the other's."""

from __future__ import annotations

import enum
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

THIS: Final = "this"
OTHER: Final = "other"

#: A difference that is smaller, as a part of the figure, is none, whatever the runs' own spread was.
_NEGLIGIBLE: Final = 0.03


class Unit(enum.StrEnum):
    """What a figure counts. Less is better in all of them."""

    SECONDS = "s"
    BYTES = "bytes"
    ROUND_TRIPS = "round trips"
    #: One figure divided by another of the same run.
    TIMES = "times"


class Verdict(enum.StrEnum):
    """How this checkout's figure stands to the other's."""

    BETTER = "better"
    SAME = "same"
    WORSE = "worse"
    #: Only one of them has the figure.
    NONE = "-"


@dataclass
class Figure:
    """One thing that was measured: a sample a run for each subject."""

    row: str
    label: str
    place: str
    unit: Unit
    samples: dict[str, list[float]] = field(default_factory=dict)

    def median(self, subject: str) -> float | None:
        """The median of the runs, or None for a subject that was not measured."""
        samples = self.samples.get(subject)
        return statistics.median(samples) if samples else None

    def spread(self, subject: str) -> float:
        """The largest of the runs less the smallest."""
        samples = self.samples.get(subject) or [0.0]
        return max(samples) - min(samples)

    @property
    def ratio(self) -> float | None:
        """How often this checkout's figure goes into the other's: 2 is half the time, or half the bytes."""
        this, other = self.median(THIS), self.median(OTHER)
        return other / this if this and other is not None else None

    @property
    def verdict(self) -> Verdict:
        """Worse or better is what the larger spread of the two, and three percent, do not explain."""
        this, other = self.median(THIS), self.median(OTHER)
        if this is None or other is None:
            return Verdict.NONE
        tolerated = max(self.spread(THIS), self.spread(OTHER), _NEGLIGIBLE * other)
        if abs(this - other) <= tolerated:
            return Verdict.SAME
        return Verdict.WORSE if this > other else Verdict.BETTER

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        subjects = {
            name: {"median": self.median(name), "spread": self.spread(name), "runs": samples}
            for name, samples in self.samples.items()
        }
        about = {"row": self.row, "figure": self.label, "place": self.place, "unit": self.unit.value}
        return {**about, "subjects": subjects, "ratio": self.ratio, "verdict": self.verdict.value}


@dataclass(frozen=True)
class Missing:
    """What could not be measured, and why."""

    subject: str
    row: str
    place: str
    reason: str


class Figures:
    """All figures, in the order in which they were first measured."""

    def __init__(self) -> None:
        self._figures: dict[tuple[str, str, str, Unit], Figure] = {}
        self.missing: Final[list[Missing]] = []

    def __iter__(self) -> Iterator[Figure]:
        return iter(self._figures.values())

    def add(self, row: str, label: str, place: str, unit: Unit, subject: str, value: float) -> None:
        """One more sample."""
        figure = self._figures.setdefault((row, label, place, unit), Figure(row, label, place, unit))
        figure.samples.setdefault(subject, []).append(value)

    def is_worse_in(self, row: str) -> bool:
        """Whether this checkout is worse than the other in a figure of this row."""
        return any(figure.verdict is Verdict.WORSE for figure in self if figure.row == row)

    @property
    def is_worse(self) -> bool:
        """Whether this checkout is worse than the other in anything, or could not do something."""
        return any(figure.verdict is Verdict.WORSE for figure in self) or any(
            missing.subject == THIS for missing in self.missing
        )
