"""The rows of an account in two places, compared in key order and in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from .interface import Row
from .marks import MARK_KEY
from .ring import RING_KEYS

#: How many rows are named; where all of them differ, they would not fit into memory.
_MOST_NAMED: Final = 10_000

#: What is not copied as it is: the ring comes last, and a mark is of its own place.
NOT_COPIED_AS_ROWS: Final = frozenset({*RING_KEYS, MARK_KEY})


class Difference(StrEnum):
    """How a row differs at the destination."""

    MISSING = "is missing at the destination"
    ADDED = "is at the destination alone"
    CHANGED = "is not the same at the destination"
    NONE = ""


class Different(NamedTuple):
    """A row that is not as it should be, and why."""

    key: bytes
    reason: str


def note(noted: list[Different], key: bytes, reason: str) -> None:
    """Add a row to those that are named, up to 10,000 of them."""
    if len(noted) < _MOST_NAMED:
        noted.append(Different(key, str(reason)))


def note_changed(noted: list[Different], wanted: Mapping[bytes, bytes], there: Mapping[bytes, bytes]) -> None:
    """Add the rows that are not there as they were written, those that are missing or too many among them."""
    for key in sorted(wanted.keys() | there.keys()):
        if wanted.get(key) != there.get(key):
            note(noted, key, Difference.CHANGED)


def copied_rows(pages: Iterable[Sequence[Row]], passed: Callable[[int], None] = lambda _number: None) -> Iterator[Row]:
    """The rows that are copied as they are, of all; `passed` is called with numbers of rows."""
    for page in pages:
        yield from [row for row in page if row.key not in NOT_COPIED_AS_ROWS]
        passed(len(page))


def compared(ours: Iterator[Row], theirs: Iterator[Row]) -> Iterator[tuple[Row, Difference]]:
    """Every row of the source and of the destination, each in key order, and how it differs there."""
    one, other = next(ours, None), next(theirs, None)
    while one is not None and other is not None:
        if one.key < other.key:
            yield one, Difference.MISSING
            one = next(ours, None)
        elif other.key < one.key:
            yield other, Difference.ADDED
            other = next(theirs, None)
        else:
            yield one, Difference.NONE if one.value == other.value else Difference.CHANGED
            one, other = next(ours, None), next(theirs, None)
    yield from _rest(one, ours, Difference.MISSING)
    yield from _rest(other, theirs, Difference.ADDED)


def _rest(row: Row | None, rows: Iterator[Row], difference: Difference) -> Iterator[tuple[Row, Difference]]:
    if row is not None:
        yield row, difference
        yield from ((each, difference) for each in rows)
