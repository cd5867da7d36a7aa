"""What a worker tells: seconds by name, and when each of them was measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

T = TypeVar("T")


class Timings:
    """Seconds by name.

    A span is the beginning and the end of a measurement on the machine's monotonic clock, which is the same for all
    processes, and how many operations it held: the network's watcher counts in it.
    """

    def __init__(self) -> None:
        self.seconds: Final[dict[str, float]] = {}
        self.spans: Final[dict[str, tuple[float, float, int]]] = {}

    @contextmanager
    def all_of(self, name: str, count: int = 1) -> Iterator[None]:
        """Time a block that does `count` things in one operation; what is kept is the seconds of one thing."""
        began, started = time.monotonic(), time.perf_counter()
        yield
        self.seconds[name] = (time.perf_counter() - started) / count
        self.spans[name] = (began, time.monotonic(), 1)

    def each(self, name: str, do: Callable[[T], object], things: Iterable[T]) -> None:
        """Time `do` for each of the things; what is kept is the median."""
        began, seconds = time.monotonic(), []
        for thing in things:
            started = time.perf_counter()
            do(thing)
            seconds.append(time.perf_counter() - started)
        self.seconds[name] = statistics.median(seconds)
        self.spans[name] = (began, time.monotonic(), len(seconds))

    def told(self, **more: Any) -> dict[str, Any]:
        """What the worker prints."""
        return {"values": self.seconds, "spans": self.spans, **more}
