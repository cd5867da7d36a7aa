"""Accounts that somebody else has, for tests of clients that want to open them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from client_pairs import BOB, Person, people
from cryptostore import Changes
from cryptostore.nio.client.takeovers import TakeOvers
from cryptostore.nio.storage import backends
from cryptostore.store.memory import MemoryHandle
from small_homeserver import SmallHomeserver


def waiting(server: SmallHomeserver, url: str, owner: str = "late:1") -> Person:
    """Somebody who wants Bob's account."""
    return Person(server, BOB, f"{url}{'&' if '?' in url else '?'}owner={owner}")


@asynccontextmanager
async def held(url: str, pause: float) -> AsyncIterator[tuple[SmallHomeserver, Person, Person]]:
    """A homeserver, Alice, and an owner of Bob's account; the next takes it over after twice `pause` seconds."""
    async with people(url) as (server, alice, bob):
        await bob.client.close()
        holder = await waiting(server, url, "healthy:1").start()
        try:
            holder.store.storage.write(Changes([TakeOvers([time.time()] * 4, pause).record()]))
            await holder.client.sync()
            yield server, alice, holder
        finally:
            await holder.client.close()


async def give_up(opening: asyncio.Task[Any]) -> None:
    """Cancel the task that opens an account."""
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening


def is_used(url: str) -> bool:
    """Whether somebody in this process has connections to this database, under this very URL."""
    return any(used == url for _, used in backends._shared)


async def until_nobody_uses(url: str) -> None:
    """Wait until the last one has given them back."""
    ends = time.monotonic() + 10
    while is_used(url):
        assert time.monotonic() < ends
        await asyncio.sleep(0.05)


class Gate:
    """Where the thread that opens an account waits for a test: before or after its first `find` or `take_over`."""

    def __init__(self, step: str, *, waits_before: bool = False) -> None:
        self.step = step
        self.reached, self.opened = threading.Event(), threading.Event()
        self._waits_before = waits_before
        self._call = getattr(MemoryHandle, step)

    def pass_through(self, *given: Any) -> Any:
        """In place of the database's own method."""
        is_first = not self.reached.is_set()
        if is_first and self._waits_before:
            self._wait()
        answer = self._call(*given)
        if is_first and not self._waits_before:
            self._wait()
        return answer

    def _wait(self) -> None:
        self.reached.set()
        assert self.opened.wait(10)
