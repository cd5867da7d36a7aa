"""One call, tried as often as its deadline allows."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from cryptostore.errors import BackendUnavailable

T = TypeVar("T")

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
#: The least part of the deadline for an attempt: one with less could tell only that its time was over, and not why.
_LEAST_PART: Final = 1 / 20


def tell_nobody(_error: BackendUnavailable) -> None:
    """Takes the place of who is told of attempts in vain."""


class Attempts:
    """The attempts of one call: how long each may take, and the pauses between them.

    `retrying` is called with the error of an attempt that is followed by another.
    """

    def __init__(self, deadline: float, retrying: Callable[[BackendUnavailable], None] = tell_nobody) -> None:
        self._deadline = deadline
        self._retrying = retrying
        self._began = time.monotonic()
        self._ends = self._began + deadline
        #: How many attempts were in vain and followed by another.
        self.retries = 0
        self._pause = _FIRST_PAUSE

    @property
    def remaining(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self._ends - time.monotonic())

    @property
    def elapsed(self) -> float:
        """Seconds since the first attempt."""
        return time.monotonic() - self._began

    def timeout(self) -> float:
        """Seconds for the next attempt: few enough that one that hangs leaves time for another."""
        return min(self.remaining, max(self._deadline / 3, self.remaining / 2))

    @contextmanager
    def giving_back(self) -> Iterator[None]:
        """What the block does asks no database, and its time is none of the attempts'."""
        began = time.monotonic()
        yield
        self._ends += time.monotonic() - began

    def pause(self, error: BackendUnavailable) -> bool:
        """Wait before the attempt after this error, longer each time; False at once where the deadline comes first."""
        if self._pause + _LEAST_PART * self._deadline >= self.remaining:
            return False
        self.retries += 1
        self._retrying(error)
        # Random, so that the clients of a server that came back do not return in one wave.
        time.sleep(self._pause * random.uniform(0.5, 1.0))
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return True

    def run(self, attempt: Callable[[float], T]) -> T:
        """The answer of `attempt(timeout)`, which may be done twice. Raises BackendUnavailable at the deadline."""
        while True:
            try:
                return attempt(self.timeout())
            except BackendUnavailable as error:
                error.outcome_unknown = False
                if not self.pause(error):
                    raise
