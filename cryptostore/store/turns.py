"""One thread at a time, and no turn that an interrupt leaves behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class _Turn:
    """One use of what is used by one thread at a time."""

    lasts = True


class Turns:
    """Lets one thread at a time in.

    An interrupt may come right after a lock was acquired, before it is noted that it must be released. A turn that was
    given to a thread is known to that thread before it begins.
    """

    def __init__(self) -> None:
        # Reentrant: a turn that an interrupt left ends when its error is thrown away, which may be at any place.
        self._guard = threading.RLock()
        self._newest = _Turn()
        self._newest.lasts = False
        # Not a condition, whose methods are Python's: an interrupt in the middle of one finds the guard released.
        self._waiters: list[threading.Lock] = []

    @contextmanager
    def one(self, timeout: float) -> Iterator[bool]:
        """Whether this thread was let in, within `timeout` seconds. It is until the end of the block."""
        turn = _Turn()
        try:
            yield self._begin(turn, time.monotonic() + timeout)
        finally:
            # First, since it calls nothing: a second interrupt has no place before it.
            turn.lasts = False
            try:
                self._wake()
            except BaseException:
                self._wake()
                raise

    def _begin(self, turn: _Turn, ends: float) -> bool:
        while True:
            left = ends - time.monotonic()
            waiter = threading.Lock()
            waiter.acquire()
            with self._guard:
                if not self._newest.lasts:
                    self._newest = turn
                    return True
                if left <= 0:
                    return False
                self._waiters.append(waiter)
            # Outside the guard, and in one call: an interrupt ends it with nothing held.
            waiter.acquire(timeout=left)

    def _wake(self) -> None:
        """Let every thread that waits look again. One that waits no longer is not harmed."""
        with self._guard:
            for waiter in self._waiters:
                # An interrupt may have ended an earlier round in the middle.
                if waiter.locked():
                    waiter.release()
            self._waiters.clear()
