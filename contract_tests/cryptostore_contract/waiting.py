"""Threads that a case waits for, and never for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final, TypeVar

T = TypeVar("T")

#: Seconds after which something counts as hanging: far above every deadline in the suite, on any machine.
HANGS: Final = 60.0


def start(function: Callable[[], T]) -> Future[T]:
    """Run a function in a thread of its own, which does not keep the process alive if it hangs."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001  # handed on to the caller, who waits for the result
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def finishes(function: Callable[[], T]) -> T:
    """What the function returns or raises; fails if it does neither, which is the point of a deadline."""
    return result_of(start(function))


def result_of(future: Future[T]) -> T:
    """What a started function returned or raised; fails if it hangs."""
    try:
        return future.result(HANGS)
    except TimeoutError:
        if future.done():
            raise
        raise AssertionError(f"still waiting after {HANGS:g} s, long after every deadline") from None


def together(functions: Sequence[Callable[[], Any]]) -> list[Any]:
    """The results of functions that run at the same time, each in its thread."""
    barrier = threading.Barrier(len(functions))

    def started_together(function: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            barrier.wait(HANGS)
            return function()

        return run

    futures = [start(started_together(function)) for function in functions]
    return [result_of(future) for future in futures]
