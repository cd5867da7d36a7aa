"""A picture of how many records there are, by the day on which they came."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date, timedelta
from itertools import accumulate
from operator import attrgetter
from pathlib import Path
from typing import Any, Final
from xml.etree.ElementTree import Element

from cryptostore.errors import ConfigurationError
from cryptostore.records import InboundGroupSession, Key, OlmSession, OutboundGroupSession, Record, WithheldKey
from cryptostore.shown import shown
from cryptostore.store.crypto_store import CryptoStore

#: The kinds whose records say when they came; the others do not.
_TIMES: Final[Mapping[type[Record], str]] = {
    InboundGroupSession: "received_at",
    OlmSession: "created_at",
    OutboundGroupSession: "created_at",
    WithheldKey: "received_at",
}
#: Of Okabe and Ito, which people who see few colours tell apart.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
#: Enough for a line across a page.
_MOST_POINTS: Final = 120
#: About how many of the days have their names below.
_LABELS: Final = 8
#: How much more the most of one kind are than of another, before one scale would hide the other.
_FAR_APART: Final = 50

Days = Mapping[str, Counter[date]]


def count_days(store: CryptoStore, days: dict[str, Counter[date]], advance: Callable[[int], None]) -> int:
    """Add to `days` how many records of each kind came on each day, in bounded memory. Raises as `scan` does.

    Returns how many cannot be read.
    """
    unreadable: dict[Key | None, str] = {}
    for kind, name in _TIMES.items():
        time_of, counted = attrgetter(name), days.setdefault(kind.kind_name, Counter())
        for record in store.scan(kind, unreadable=unreadable):
            counted[time_of(record).date()] += 1
            advance(1)
    return len(unreadable)


def check_plot_name(file: Path) -> None:
    """Raise ConfigurationError for a name that is no picture's: what has it may be a database, or a key."""
    if file.suffix.lower() != ".svg":
        raise ConfigurationError(f"--plot writes SVG, and would replace {file}: name a file that ends in .svg")


def write_plot(file: Path, title: str, days: Days) -> None:
    """Write an SVG file, in place of one that is there; whole, or not at all. Raises ConfigurationError."""
    drawn = _drawn(title, {kind: counted for kind, counted in days.items() if counted})
    unfinished = file.parent / f"{file.name}.unfinished"
    try:
        unfinished.write_bytes(drawn)
        os.replace(unfinished, file)  # noqa: PTH105  # a path's own method says the same
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise ConfigurationError(
            f"the plot cannot be written to {file}: {error.strerror}; make room, or name a file elsewhere"
        ) from error


def _pygal() -> Any:
    """The library. Raises ConfigurationError where it is not installed."""
    try:
        import pygal
    except ImportError:
        raise ConfigurationError("--plot needs the library pygal, which is not installed: pip install pygal") from None
    # For maps, it would look at every later import of the process, in a way that Python 3.11 warns of.
    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != pygal.__name__]
    return pygal


def _drawn(title: str, days: Days) -> bytes:
    pygal = _pygal()
    shared = _shared_days(days)
    totals = [counted.total() for counted in days.values()]
    is_wide = bool(totals) and max(totals) > _FAR_APART * min(totals)
    # Not its DateLine, which calls what Python 3.12 has deprecated.
    chart = pygal.XY(
        title=shown(title),
        x_title="day by which they came",
        y_title="stored records",
        x_labels=[day.toordinal() for day in shared[:: max(1, len(shared) // _LABELS)]] or None,
        x_value_formatter=lambda ordinal: date.fromordinal(max(1, round(ordinal))).isoformat(),
        show_x_labels=bool(shared),
        show_y_labels=bool(shared),
        y_labels=_labels(max(totals, default=0), is_wide=is_wide),
        logarithmic=is_wide,
        value_formatter=lambda number: f"{number:,.0f}",
        legend_at_bottom=True,
        legend_at_bottom_columns=2,
        truncate_legend=-1,
        x_label_rotation=30,
        dots_size=1.5,
        stroke_style={"width": 2},
        no_data_text="no record says when it came",
        js=[],
        style=pygal.style.Style(
            colors=_COLOURS,
            background="white",
            plot_background="white",
            foreground_subtle="#bbbbbb",
            guide_stroke_color="#dddddd",
            major_guide_stroke_color="#dddddd",
            font_family="sans-serif",
            title_font_size=18,
            label_font_size=13,
            major_label_font_size=13,
            legend_font_size=14,
            no_data_font_size=20,
        ),
    )
    for kind, counted in days.items():
        chart.add(f"{kind} ({counted.total():,})", _line(counted, shared))
    chart.add_xml_filter(_without_scripts)
    rendered: bytes = chart.render()
    return rendered


def _without_scripts(root: Element) -> Element:
    """A picture runs nothing. The library's scripts would come from the network."""
    for parent in list(root.iter()):
        for script in [each for each in parent if str(each.tag).endswith("script")]:
            parent.remove(script)
    return root


def _shared_days(days: Days) -> list[date]:
    """The days of all points, evenly apart, from the first day on which something came until the last one."""
    if not days:
        return []
    first, last = min(map(min, days.values())), max(map(max, days.values()))
    step = max(1, -(-(last - first).days // _MOST_POINTS))
    return [first + timedelta(distance) for distance in range(0, (last - first).days + step, step)]


def _labels(most: int, *, is_wide: bool) -> list[int] | None:
    """The labels of a scale of powers of ten, or of one from 0, about five of them."""
    if not most:
        return None
    if is_wide:
        return [10**power for power in range(len(str(most)) + 1)]
    step = next(digit * 10**power for power in range(20) for digit in (1, 2, 5) if digit * 10**power * 5 >= most)
    return list(range(0, most + step, step))


def _line(counted: Counter[date], shared: Sequence[date]) -> list[tuple[int, int]]:
    """How many had come by each of these days, as ordinals, from the first on which one had."""
    came = Counter[int]()
    step = (shared[1] - shared[0]).days if len(shared) > 1 else 1
    for day, number in counted.items():
        came[-(-(day - shared[0]).days // step)] += number
    line = zip(shared, accumulate(came[each] for each in range(len(shared))), strict=True)
    return [(day.toordinal(), number) for day, number in line if number]
