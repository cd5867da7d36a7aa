"""The table that a person reads, and the same as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich.table import Table

from measuring.figures import OTHER, THIS, Figure, Figures, Unit, Verdict

_STYLES: Final = {Verdict.WORSE: "red", Verdict.BETTER: "green", Verdict.SAME: None, Verdict.NONE: None}


def table(figures: Figures, names: Mapping[str, str]) -> Table:
    """Medians, in brackets their spread; how often this goes into the other's; and what was measured beside them.

    `names` are the headings of this checkout's column and the other's.
    """
    shown = Table(caption="in brackets: the largest run less the smallest")
    shown.add_column("median of the runs", no_wrap=True)
    for heading in names.values():
        shown.add_column(heading, justify="right", no_wrap=True)
    if OTHER in names:
        shown.add_column("other ÷ this", justify="right", no_wrap=True)
        shown.add_column("this is", no_wrap=True)
    shown.add_column("beside it")
    by_label: dict[str, list[Figure]] = {}
    for figure in figures:
        by_label.setdefault(figure.label, []).append(figure)
    for label, group in by_label.items():
        shown.add_row(label, style="bold")
        for figure in group:
            shown.add_row(*_cells(figure, names), style=_STYLES[figure.verdict])
        shown.add_section()
    return shown


def _cells(figure: Figure, names: Mapping[str, str]) -> list[str]:
    place = f"{figure.place}, round trips" if figure.unit is Unit.ROUND_TRIPS else figure.place
    compared = [f"{figure.ratio:.2f}" if figure.ratio else "-", figure.verdict.value] if OTHER in names else []
    return [f"  {place}", *(_measured(figure, name) for name in names), *compared, _beside(figure)]


def _measured(figure: Figure, subject: str) -> str:
    median, spread = figure.median(subject), figure.spread(subject)
    if median is None:
        return "-"
    return f"{amount(median, figure.unit)} ({amount(spread, figure.unit)})" if spread else amount(median, figure.unit)


def _beside(figure: Figure) -> str:
    """The references; of those that were measured for both checkouts, this one's and the other's."""
    shown: dict[str, list[str]] = {}
    for subject in figure.samples:
        median = figure.median(subject)
        if subject not in (THIS, OTHER) and median is not None:
            shown.setdefault(subject.partition(",")[0], []).append(amount(median, figure.unit))
    return ", ".join(f"{name} {' | '.join(amounts)}" for name, amounts in shown.items())


def amount(value: float, unit: Unit) -> str:
    """A value as a person writes it."""
    if unit is Unit.BYTES:
        return f"{value:,.0f}"
    if unit is not Unit.SECONDS:
        return _three_digits(value)
    for size, name in ((1, "s"), (1e-3, "ms")):
        if value >= size:
            return f"{_three_digits(value / size)} {name}"
    return f"{_three_digits(value * 1e6)} µs"


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def as_json(figures: Figures, about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that was measured, every run of it."""
    missing = [vars(each) for each in figures.missing]
    return {**about, "figures": [figure.as_json() for figure in figures], "missing": missing, "worse": figures.is_worse}
