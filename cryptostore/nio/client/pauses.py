"""Pauses between attempts that fail."""

from __future__ import annotations

from datetime import timedelta
from typing import Final, TypeVar

D = TypeVar("D", float, timedelta)

#: Beyond this many doublings no pause is wanted, and a float could not hold many more.
_MOST_DOUBLINGS: Final = 30


def growing_pause(failures: int, first: D, longest: D) -> D:
    """How long to wait after so many failures in a row: `first`, then twice as long each time, up to `longest`."""
    return min(first * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), longest)
