"""How records differ, in words: their reprs show no values, so that two that differ look the same.

A difference is told by kind, key and field, and never by what is in the field, which may be a key of somebody's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from cryptostore import Record, fields_of

Place: TypeAlias = tuple[str, tuple[object, ...]]

#: So many differences are told.
_MOST = 20


def explained(found: object, expected: object) -> list[str] | None:
    """Lines on how records differ from those that were expected, or None where there are none to compare."""
    ours, theirs = _records(found), _records(expected)
    if ours is None or theirs is None or not ours + theirs:
        return None
    lines = list(_differences(ours, theirs)) or ["the same records, in another order or under other keys"]
    more = [f"… and {len(lines) - _MOST} more differences"] if len(lines) > _MOST else []
    return ["records differ", *lines[:_MOST], *more]


def _differences(found: list[Record], expected: list[Record]) -> Iterator[str]:
    ours, theirs = _by_place(found), _by_place(expected)
    for place, count in Counter(map(_place_of, found)).items():
        if count > 1:
            yield f"{_named(place)} comes {count} times"
    yield from (f"{_named(place)} is missing" for place in theirs if place not in ours)
    yield from (f"{_named(place)} was not expected" for place in ours if place not in theirs)
    for place, record in ours.items():
        if place in theirs and record != theirs[place]:
            fields = [name for name, _ in fields_of(type(record)) if _differs(record, theirs[place], name)]
            yield f"{_named(place)} differs in {', '.join(fields)}"


def _differs(record: Record, other: Record, name: str) -> bool:
    return bool(getattr(record, name) != getattr(other, name))


def _by_place(records: Iterable[Record]) -> dict[Place, Record]:
    return {_place_of(record): record for record in records}


def _place_of(record: Record) -> Place:
    return record.kind_name, tuple(record.key)


def _named(place: Place) -> str:
    kind, key = place
    return f"{kind} {key!r}" if key else f"the {kind}"


def _records(value: object) -> list[Record] | None:
    """The records of a value that is made of nothing else, in containers of any kind."""
    if isinstance(value, Record):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, list | tuple | set | frozenset):
        return None
    parts = [_records(part) for part in value]
    return None if None in parts else [record for part in parts for record in part or []]
