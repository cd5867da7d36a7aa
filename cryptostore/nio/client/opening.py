"""Opening in threads, which cannot be stopped: what the caller gave up is closed, or not opened at all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Generic, TypeVar

from cryptostore.errors import StoreClosed

from .looking import given_up

T = TypeVar("T")

_CLOSED: Final = "this client was closed while it was being opened; `await client.open()` opens it again"


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

    def start(self, threads: ThreadPoolExecutor | None = None) -> asyncio.Future[T]:
        """Run it in a thread. The answer is done when the thread is."""
        thread = asyncio.get_running_loop().run_in_executor(threads, self._run)
        thread.add_done_callback(_retrieve)
        return thread

    async def result(self, thread: asyncio.Future[T]) -> T:
        """What `open_it` returned. If the caller is cancelled, it is closed."""
        try:
            return await asyncio.shield(thread)
        except asyncio.CancelledError:
            self._give_up()
            raise

    def _run(self) -> T:
        self._check()
        opened = self._open_it(self._check)
        with self._lock:
            self._opened = opened
            if not self._is_given_up:
                return opened
        self._close(opened)
        raise given_up()

    def _check(self) -> None:
        if self._is_given_up:
            raise given_up()

    def _give_up(self) -> None:
        with self._lock:
            self._is_given_up = True
            opened = self._opened
        if opened is not None:
            # The thread was done, but the caller had gone.
            self._close(opened)


class Openings:
    """The openings of a client that are under way: the tasks that wait, and all threads, given up or not."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._executor = threads
        #: What is done when that task waits no more.
        self._callers: dict[asyncio.Task[Any], asyncio.Future[None]] = {}
        self._given_up: set[asyncio.Task[Any]] = set()
        self._threads: set[asyncio.Future[Any]] = set()

    def __bool__(self) -> bool:
        return bool(self._callers or self._threads)

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work`. Raises StoreClosed if `end` is called meanwhile.

        In the caller's own task: from another one, the result could come just when the caller is cancelled.
        """
        caller = _current_task()
        cancellations = caller.cancelling()
        over = self._callers[caller] = asyncio.get_running_loop().create_future()
        try:
            await work
        except asyncio.CancelledError:
            if caller in self._given_up and caller.cancelling() == cancellations + 1:
                raise StoreClosed(_CLOSED) from None
            raise
        finally:
            if caller in self._given_up:
                self._given_up.remove(caller)
                caller.uncancel()
            del self._callers[caller]
            over.set_result(None)

    async def in_thread(self, open_it: Callable[[Callable[[], None]], T], close: Callable[[T], None]) -> T:
        """The result of an `Opening`, after those that were given up are over: they could still take it away."""
        await self._threads_end()
        opening = Opening(open_it, close)
        thread = opening.start(self._executor)
        self._threads.add(thread)
        thread.add_done_callback(self._threads.discard)
        return await opening.result(thread)

    async def end(self) -> None:
        """Give everything up. Nothing of it is open when this returns."""
        for caller in self._callers.keys() - self._given_up:
            self._given_up.add(caller)
            caller.cancel()
        if self._callers:
            await asyncio.wait(list(self._callers.values()))
        await self._threads_end()

    async def _threads_end(self) -> None:
        if self._threads:
            await asyncio.wait(self._threads)


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a client is opened by a task")
    return task


def _retrieve(thread: asyncio.Future[Any]) -> None:
    # The caller has gone; without this, asyncio would log the error.
    if not thread.cancelled():
        thread.exception()
