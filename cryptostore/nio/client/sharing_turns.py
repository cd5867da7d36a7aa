"""Whose turn it is to share a room's key: one at a time, and what makes a sharing worthless meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class SharingTurns:
    """The rooms whose key is being shared. `events` is nio's own record of them."""

    def __init__(self, events: dict[str, asyncio.Event]) -> None:
        self._events = events
        #: Rooms whose session became unfit while it was being shared.
        self._overtaken: set[str] = set()

    def __contains__(self, room_id: str) -> bool:
        return room_id in self._events

    @contextmanager
    def taken(self, room_id: str) -> Iterator[None]:
        """Have this room's turn inside the block. Others that send wait."""
        self._events[room_id] = asyncio.Event()
        try:
            yield
        finally:
            self._overtaken.discard(room_id)
            self._events.pop(room_id).set()

    async def wait(self, room_id: str) -> None:
        """Wait until it is not shared: nio would wait only once, and encrypt without asking what became of it."""
        while room_id in self._events:
            await self._events[room_id].wait()

    def begin_round(self, room_id: str) -> None:
        """What was overtaken is shared once more."""
        self._overtaken.discard(room_id)

    def overtake(self, room_id: str) -> None:
        """The session that is being shared, if one is, must not be used."""
        if room_id in self._events:
            self._overtaken.add(room_id)

    def is_overtaken(self, room_id: str) -> bool:
        """Whether the session of this round must not be used."""
        return room_id in self._overtaken
