"""Whether events are being handed to callbacks, and in which tasks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

#: What hands events on in the task that asks, or in one that started it.
_handling: ContextVar[frozenset[int]] = ContextVar("handling", default=frozenset())


class Handling:
    """The handling of one client's events."""

    def __init__(self) -> None:
        self._is_under_way = False

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Callbacks may run inside the block."""
        token: Final = _handling.set(_handling.get() | {id(self)})
        self._is_under_way = True
        try:
            yield
        finally:
            self._is_under_way = False
            _handling.reset(token)

    @property
    def is_in_callback(self) -> bool:
        """Whether the task that asks is, or was started by, one that runs callbacks now."""
        return self._is_under_way and id(self) in _handling.get()
