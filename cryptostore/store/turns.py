"""One thread at a time, and no turn that an interrupt leaves behind."""

from __future__ import annotations

import threading
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
        # Not through the condition: its methods are Python's, in the middle of which an interrupt may come.
        self._guard = threading.Lock()
        self._ended = threading.Condition(self._guard)
        self._newest = _Turn()
        self._newest.lasts = False

    @contextmanager
    def one(self, timeout: float) -> Iterator[bool]:
        """Whether this thread was let in, within `timeout` seconds. It is until the end of the block."""
        turn = _Turn()
        try:
            with self._guard:
                is_in = self._ended.wait_for(lambda: not self._newest.lasts, timeout)
                if is_in:
                    self._newest = turn
            yield is_in
        finally:
            # First, since it calls nothing: a second interrupt has no place before it.
            turn.lasts = False
            with self._guard:
                self._ended.notify_all()
