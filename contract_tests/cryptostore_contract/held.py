"""A call that is held in its middle, whatever backend makes it, while something else is done to its database.

It is held at an event of Python's profiler (see `moments`) in the thread that makes the call. So the moment is chosen,
and not hit by chance, and the backend needs no pause of its own.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import FrameType
from typing import Any, Generic, TypeVar

from . import waiting
from .waiting import result_of, start

T = TypeVar("T")


class Call(Generic[T]):
    """A call in a thread of its own, which counts its events and stops at one of them."""

    def __init__(self, function: Callable[[], T], stop: int = 0) -> None:
        self._function = function
        self._stop = stop
        self._stopped = threading.Event()
        self._may_go_on = threading.Event()
        #: How many events there were so far.
        self.events = 0
        self.result: Future[T] = start(self._run)
        assert self._stopped.wait(waiting.HANGS), "a call neither came to an event nor to its end"

    def go_on(self) -> None:
        """Let the call go on to its end."""
        self._may_go_on.set()

    def _run(self) -> T:
        sys.setprofile(self._hook)
        try:
            return self._function()
        finally:
            sys.setprofile(None)
            self._stopped.set()

    def _hook(self, _frame: FrameType, _event: str, _argument: Any) -> None:
        self.events += 1
        if self.events == self._stop:
            self._stopped.set()
            self._may_go_on.wait(waiting.HANGS)


@contextmanager
def held(function: Callable[[], T], event: int) -> Iterator[Future[T]]:
    """A call that is held at this event as long as the context is open, or has ended before it; gives its result."""
    call = Call(function, event)
    try:
        yield call.result
    finally:
        call.go_on()


def events_of(function: Callable[[], object]) -> int:
    """How many events a call has; it is made."""
    call = Call(function)
    result_of(call.result)
    return call.events


def halve(events: int, comes_first: Callable[[int], bool]) -> None:
    """Look by halving for the event from which on what is done meanwhile does not come first any more.

    Where a call does by parts what it should do at once, there is a stretch of events in which neither is true. The
    search ends in that stretch, however short it is, and `comes_first` has to fail there.
    """
    first, second = 0, events + 1
    while second - first > 1:
        middle = (first + second) // 2
        if comes_first(middle):
            first = middle
        else:
            second = middle
