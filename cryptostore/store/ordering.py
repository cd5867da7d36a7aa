"""Checks of a backend's answers: rows come in order, once, and only if they were asked for."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence

from cryptostore.errors import BackendInvalid

from .interface import Range, Row


def merged(ranges: Iterable[Range]) -> list[Range]:
    """The same keys as ranges that are in order and do not overlap."""
    disjoint: list[Range] = []
    for each in sorted(set(ranges), key=lambda given: given.start):
        if disjoint and (disjoint[-1].end is None or each.start < disjoint[-1].end):
            # Ranges of prefixes lie in each other or apart: the outer one comes first.
            continue
        disjoint.append(each)
    return disjoint


def only_wanted(wanted: Container[bytes], rows: Sequence[Row]) -> Iterator[Row]:
    """The rows. Raises BackendInvalid for one that was not asked for, or comes twice."""
    seen: set[bytes] = set()
    for row in rows:
        if row[0] not in wanted or row[0] in seen:
            raise _invalid("a row that was not asked for, or one twice")
        seen.add(row[0])
        yield row


def checked_rows(rows: Sequence[Row], ranges: Sequence[Range]) -> Iterator[Row]:
    """The rows. Raises BackendInvalid where they are out of order, come twice or lie outside the ranges."""
    remaining = iter(ranges)
    within = next(remaining, None)
    last = b""
    for row in rows:
        key = row[0]
        if key <= last:
            raise _invalid("rows out of order, or one twice")
        last = key
        while within is not None and within.end is not None and key >= within.end:
            within = next(remaining, None)
        if within is None or key < within.start:
            raise _invalid("a row that was not asked for")
        yield row


def _invalid(what: str) -> BackendInvalid:
    return BackendInvalid(
        f"the backend answered {what}; nothing of the answer was used. Report this to the backend's authors"
    )
