"""JSON that strangers may write in the place of what belongs there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

ODD: list[Any] = [None, True, 5, "", "text", [], [1], {}, {"a": 1}, "nul\0", "\ud800", 9_000 * "x"]


def odd_versions(value: Any) -> Iterator[Any]:
    """The value itself replaced, and everything inside it."""
    yield from ODD
    if isinstance(value, dict):
        for name, inner in value.items():
            yield {other: kept for other, kept in value.items() if other != name}
            yield from ({**value, name: odd} for odd in odd_versions(inner))
