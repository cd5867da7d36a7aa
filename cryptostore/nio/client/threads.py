"""Threads for the calls that wait for a database, of each database its own: one that is away uses up only its own."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar
from weakref import WeakValueDictionary

#: So many clients of one database may wait for it at a time; the next ones wait for their turn.
_MOST: Final = 32

P = ParamSpec("P")
T = TypeVar("T")

_lock: Final = threading.Lock()
#: They end with the last client that uses them.
_threads: Final[WeakValueDictionary[tuple[int, str, bool], ThreadPoolExecutor]] = WeakValueDictionary()


def threads_of(url: str, *, opening: bool = False) -> ThreadPoolExecutor:
    """The threads that all clients of this URL share. They are started when they are needed.

    Those that open accounts wait for homeservers, too, and no flush may have to wait for them: they are others.
    """
    with _lock:
        # A forked child has none of its parent's threads.
        key = (os.getpid(), url, opening)
        threads = _threads.get(key)
        if threads is None:
            threads = _threads[key] = ThreadPoolExecutor(_MOST, thread_name_prefix="cryptostore")
        return threads


async def in_thread(threads: ThreadPoolExecutor, call: Callable[P, T], *args: P.args, **given: P.kwargs) -> T:
    """As `asyncio.to_thread`, in one of these threads."""
    context = contextvars.copy_context()
    work = partial(context.run, call, *args, **given)
    return await asyncio.get_running_loop().run_in_executor(threads, work)
