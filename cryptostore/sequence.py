"""Exactly once: the numbering, freezing and resending of an owner's batches (promise P5)."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from .changes import Changes
from .errors import BackendUnavailable, FencedOut

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0


class Batch(NamedTuple):
    """Changes with their number: commits only after batch `number - 1`, and only once."""

    number: int
    changes: Changes


class BatchSequence:
    """Numbers one owner's batches from the last committed one on and sends each until its outcome is known.

    `commit(batch, timeout)` is one attempt. A batch whose outcome is open is kept and sent again, unchanged, before
    anything else: a new batch under its number could be taken for the one that stalled, and be lost.
    """

    def __init__(self, last_committed: int, deadline: float, commit: Callable[[Batch, float], None]) -> None:
        self._last_committed = last_committed
        self._deadline = deadline
        self._commit = commit
        self._pending: Batch | None = None
        self._lock = threading.Lock()

    @property
    def last_committed(self) -> int:
        """The number of the last batch that is known to be durable."""
        return self._last_committed

    def apply(self, changes: Changes) -> None:
        """Make `changes` durable. Raises BackendUnavailable after the deadline, with the batch kept as pending."""
        ends = time.monotonic() + self._deadline
        if not self._lock.acquire(timeout=self._deadline):
            raise BackendUnavailable(f"another batch of this store was still waiting after {self._deadline:g} s")
        try:
            pending = self._pending
            if pending is not None:
                self._send(pending, ends)
                if pending.changes == changes:
                    return
            if changes:
                self._send(Batch(self._last_committed + 1, changes), ends)
        finally:
            self._lock.release()

    def _send(self, batch: Batch, ends: float) -> None:
        tried_before = self._pending is not None
        pause = _FIRST_PAUSE
        while True:
            # Set before the attempt: an interrupt in the middle of it leaves the outcome open, too.
            self._pending = batch
            try:
                self._commit(batch, max(0.0, ends - time.monotonic()))
            except BackendUnavailable:
                tried_before = True
                if time.monotonic() + pause >= ends:
                    raise
                # Random, so that the clients of a server that came back do not return in one wave.
                time.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, _LONGEST_PAUSE)
            except FencedOut as error:
                error.outcome_unknown = tried_before
                raise
            except Exception:
                # Every other error is a refusal: the batch was rolled back and its number is free again,
                # unless an earlier attempt at it may still be on its way.
                if not tried_before:
                    self._pending = None
                raise
            else:
                self._last_committed = batch.number
                self._pending = None
                return
