"""Opening in a thread, which nobody can stop: what the caller gave up is closed, or not opened at all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from cryptostore.errors import StoreClosed

T = TypeVar("T")


class Opening(Generic[T]):
    """One run of `open_it`, which is given a function to call before it does what cannot be undone.

    That function raises StoreClosed if the caller has gone.
    """

    def __init__(self, open_it: Callable[[Callable[[], None]], T], close: Callable[[T], None]) -> None:
        self._open_it = open_it
        self._close = close
        self._lock = threading.Lock()
        self._is_given_up = False
        self._opened: T | None = None

    async def result(self) -> T:
        """What `open_it` returns. If the caller is cancelled, it is closed."""
        try:
            return await asyncio.to_thread(self._run)
        except asyncio.CancelledError:
            self._give_up()
            raise

    def _run(self) -> T:
        opened = self._open_it(self._check)
        with self._lock:
            self._opened = opened
            if not self._is_given_up:
                return opened
        self._close(opened)
        raise _given_up()

    def _check(self) -> None:
        if self._is_given_up:
            raise _given_up()

    def _give_up(self) -> None:
        with self._lock:
            self._is_given_up = True
            opened = self._opened
        if opened is not None:
            # The thread was done, but nobody heard of it.
            self._close(opened)


def _given_up() -> StoreClosed:
    return StoreClosed("whoever wanted to open this account was cancelled")
