"""Ending this process at a chosen moment of one commit, whatever backend commits: the side of the killed process.

The moments are the events of Python's profiler: each call and return of a function, Python's or C's, in every Python
thread. They need no help from the backend. A driver's native threads, and what goes on inside one C call, have no
events; a kill after a time is for those.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from traceback import walk_stack
from types import FrameType
from typing import Final

_EVENTS: Final = {
    "call": "at the call of",
    "return": "at the return of",
    "c_call": "at the call of",
    "c_return": "at the return of",
    "c_exception": "at the error of",
}

#: How many lines are told of those that led to an event, which may be deep in a library.
_LINES: Final = 12


def kill_this_process() -> None:
    """SIGKILL, here and now."""
    os.kill(os.getpid(), signal.SIGKILL)


class Events:
    """Counts profiler events of all Python threads during one call; the process dies at the event `fatal`, if any.

    Right before that, `last_words` gets some lines that say where it dies.
    """

    def __init__(self, fatal: int = 0, last_words: Callable[[str], None] = lambda _: None) -> None:
        self._fatal: Final = fatal
        self._last_words: Final = last_words
        self._counter: Final = itertools.count(1)
        self._counting = False
        # Threads take the hook when they are started, and a backend's may be older than the call.
        threading.setprofile(self._hook)

    def during(self, call: Callable[[], None]) -> int:
        """Make the call, and say how many events it had."""
        self._counting = True
        sys.setprofile(self._hook)
        try:
            call()
        finally:
            sys.setprofile(None)
            self._counting = False
        return next(self._counter) - 1

    def _hook(self, frame: FrameType, event: str, argument: object) -> None:
        # An iterator of C, so that two threads never take one number.
        if self._counting and next(self._counter) == self._fatal:
            self._last_words(_place_of(frame, event, argument))
            kill_this_process()


def _place_of(frame: FrameType, event: str, argument: object) -> str:
    """An event in words: what happens there, and the lines that led to it, the innermost first."""
    # The profiler's events of C functions have the frame of the caller, and the function as their argument.
    name = getattr(argument, "__qualname__", "?") if event.startswith("c_") else frame.f_code.co_qualname
    lines = [f"{one.f_code.co_filename}:{number} in {one.f_code.co_qualname}" for one, number in walk_stack(frame)]
    return f"{_EVENTS[event]} {name}\n  at " + "\n  called from ".join(lines[:_LINES])


def seconds_of(call: Callable[[], None]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def killed_after(seconds: float, call: Callable[[], None]) -> None:
    """Make a call in a process that the kernel ends after so many seconds.

    By SIGALRM at its default, which is as SIGKILL is: the process is gone, and no code of it runs. A killer in another
    process would be late by the time that the scheduler takes, which is longer than a commit.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    call()
