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
from typing import Final


def kill_this_process() -> None:
    """SIGKILL, here and now."""
    os.kill(os.getpid(), signal.SIGKILL)


class Events:
    """Counts profiler events of all Python threads during one call; the process dies at the event `fatal`, if any."""

    def __init__(self, fatal: int = 0) -> None:
        self._fatal: Final = fatal
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

    def _hook(self, _frame: object, _event: str, _argument: object) -> None:
        # An iterator of C, so that two threads never take one number.
        if self._counting and next(self._counter) == self._fatal:
            kill_this_process()


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
