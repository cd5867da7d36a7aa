"""A call that is interrupted where Python looks for signals: as a function begins, and after each call of one in C."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

_LOOKS: Final = frozenset({"call", "c_return"})


class Interrupt:
    """Raises KeyboardInterrupt at one of these places, after so many others."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, _frame: FrameType, event: str, _argument: Any) -> None:
        if event in _LOOKS:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt


def is_interrupted(call: Callable[[], object], after: int) -> bool:
    """Whether the call takes so many places that it is interrupted."""
    before = sys.getprofile()
    interrupt = Interrupt(after)
    # Python prints one that comes as a generator is thrown away, and goes on.
    with contextlib.suppress(KeyboardInterrupt):
        try:
            sys.setprofile(interrupt)
            call()
        finally:
            sys.setprofile(before)
    return interrupt.left <= 0
