"""Fills the gaps of all rooms, each by itself: one that has to wait keeps up neither the others nor the syncs."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from cryptostore.logs import logger

from .gap_messages import NotNowError
from .gap_records import Gaps
from .pauses import growing_pause

#: Rooms that are filled at a time: each holds a page in memory.
_ROOMS: Final = 4
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 300.0

_log: Final = logger(__name__)


class GapFiller:
    """Fills what is open in `gaps`. `make_walk` makes what walks through a room's gap; `tell` tells what was missed.

    Nothing is done before `is_ready`.
    """

    def __init__(
        self,
        gaps: Gaps,
        make_walk: Callable[[], Callable[[str], Awaitable[None]]],
        tell: Callable[[], Awaitable[None]],
        is_ready: Callable[[], bool],
    ) -> None:
        self._gaps = gaps
        self._make_walk = make_walk
        self._tell = tell
        self._is_ready = is_ready
        self._changed = asyncio.Event()
        self._rooms = asyncio.Semaphore(_ROOMS)
        self._failures: Counter[str] = Counter()
        #: When rooms that have to wait are tried again, as `time.monotonic` counts.
        self._due: dict[str, float] = {}
        gaps.on_change = self._changed.set

    async def run(self, *, for_ever: bool) -> None:
        """Fill what is open; `for_ever`, also what comes. Else it returns when what is left has to wait.

        Raises what callbacks raise, and what reading and writing the database raises.
        """
        tasks: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                self._changed.clear()
                if self._is_ready():
                    await self._tell()
                    self._begin(tasks)
                if not tasks and not for_ever and not self._changed.is_set():
                    return
                await self._wait(tasks)
                for room_id, task in list(tasks.items()):
                    if task.done():
                        del tasks[room_id]
                        task.result()
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    def _begin(self, tasks: dict[str, asyncio.Task[None]]) -> None:
        now = time.monotonic()
        for row in self._gaps.open.rows.values():
            if row.room_id not in tasks and self._due.get(row.room_id, now) <= now:
                tasks[row.room_id] = asyncio.create_task(self._fill(row.room_id))

    async def _wait(self, tasks: dict[str, asyncio.Task[None]]) -> None:
        changed = asyncio.create_task(self._changed.wait())
        waiting = [due for room_id, due in self._due.items() if room_id not in tasks and self._gaps.gap(room_id)]
        timeout = max(0.0, min(waiting) - time.monotonic()) if waiting else None
        try:
            await asyncio.wait([*tasks.values(), changed], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()

    async def _fill(self, room_id: str) -> None:
        walk = self._make_walk()
        try:
            while self._gaps.gap(room_id) is not None:
                # A turn of its own for each page: many rooms share the homeserver.
                async with self._rooms:
                    await walk(room_id)
                self._failures.pop(room_id, None)
                self._due.pop(room_id, None)
        except NotNowError as error:
            self._failures[room_id] += 1
            longest = growing_pause(self._failures[room_id], _FIRST_PAUSE, _LONGEST_PAUSE)
            pause = longest if error.pause is None else min(error.pause, _LONGEST_PAUSE)
            self._due[room_id] = time.monotonic() + pause
            _log.warning("asking for what was left out of %s again in %.0f s: %s", ascii(room_id), pause, error)
