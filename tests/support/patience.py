"""Waiting for what happens elsewhere, and not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

#: Seconds, far more than anything takes that is waited for.
PATIENCE: Final = 60.0


def wait_until(condition: Callable[[], bool]) -> None:
    """Return once the condition holds; fail if it never does."""
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends, "what was waited for did not happen"
        time.sleep(0.02)
