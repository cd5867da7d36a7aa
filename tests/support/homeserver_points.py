"""Named points in a client at which it kills itself with SIGKILL, as a power cut would."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from nio import AsyncClient

from cryptostore import Changes, CryptoStore, Database

#: The end of a request's path, and what its points are called.
_REQUESTS: Final = {
    "/room_keys/keys": "room-keys",
    "/keys/upload": "keys-upload",
    "/keys/query": "keys-query",
    "/keys/claim": "keys-claim",
    "/sendToDevice/": "send-to-device",
    "/send/m.room.encrypted/": "send",
    "/sync": "sync",
    "/messages": "messages",
}

#: Seconds between two looks at the event loop.
_BEAT: Final = 0.005


class Points:
    """The points that a process passes, and the one at which it is to die."""

    def __init__(self) -> None:
        self._armed = ""
        self._left = 0
        self._lock = threading.Lock()
        #: How often each point was passed.
        self.passed: Counter[str] = Counter()
        #: Calls to the database since `watch_loop`, and those of them in the event loop's thread.
        self.store_calls = 0
        self.loop_calls = 0
        #: The longest that the event loop was held, in seconds.
        self.longest_gap = 0.0
        #: The thread of the event loop that is watched.
        self.loop_thread: int | None = None

    def arm(self, point: str, nth: int) -> None:
        """Die when `point` is passed the nth time from now."""
        with self._lock:
            self._armed, self._left = point, nth

    async def watch_loop(self) -> None:
        """Measure for ever how long the event loop of this thread is held."""
        self.loop_thread = threading.get_ident()
        before = time.monotonic()
        while True:
            await asyncio.sleep(_BEAT)
            now = time.monotonic()
            self.longest_gap, before = max(self.longest_gap, now - before - _BEAT), now

    def store_called(self, delay: float) -> None:
        """A call to the database begins, which takes so long."""
        self.store_calls += 1
        if threading.get_ident() == self.loop_thread:
            self.loop_calls += 1
        time.sleep(delay)

    def reached(self, point: str) -> None:
        """A point is passed, in any thread."""
        with self._lock:
            self.passed[point] += 1
            if point != self._armed:
                return
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def install(points: Points, client: type[AsyncClient]) -> None:
    """Put the points into a class of clients and into our stores, in this process."""
    _around_batches(points)
    _around_requests(points)
    _around_to_device_events(points, client)
    _around_timelines(points, client)


def _around_batches(points: Points) -> None:
    apply = CryptoStore.apply

    @wraps(apply)
    def watched(self: CryptoStore, changes: Changes) -> None:
        if changes:
            points.reached("batch:before")
        apply(self, changes)
        if changes:
            points.reached("batch:after")

    # Final to those who write stores, not to those who break them.
    CryptoStore.apply = watched  # type: ignore[method-assign]


def _around_requests(points: Points) -> None:
    # Also where a subclass waits before it sends.
    send = AsyncClient.send

    async def watched(self: AsyncClient, method: str, path: str, *args: Any, **kwargs: Any) -> Any:
        kind = next((kind for part, kind in _REQUESTS.items() if part in path), "other")
        points.reached(f"{kind}:before")
        answer = await send(self, method, path, *args, **kwargs)
        # The server has done its part, and the client knows nothing of it yet.
        points.reached(f"{kind}:answered")
        return answer

    AsyncClient.send = watched  # type: ignore[method-assign]


def _around_to_device_events(points: Points, client: type[AsyncClient]) -> None:
    handle = client._handle_to_device
    decrypt: Callable[..., Any] = client._handle_decrypt_to_device

    async def watched(self: AsyncClient, response: Any) -> None:
        if response.to_device_events:
            # nio has saved the sync's token by now.
            points.reached("to-device:before")
        await handle(self, response)

    def watched_one(self: AsyncClient, event: Any) -> Any:
        decrypted = decrypt(self, event)
        points.reached("to-device:event")
        return decrypted

    client._handle_to_device = watched  # type: ignore[method-assign]
    client._handle_decrypt_to_device = watched_one  # type: ignore[method-assign, assignment]


def _around_timelines(points: Points, client: type[AsyncClient]) -> None:
    handle = client._handle_joined_rooms
    handle_one: Callable[..., Any] = client._handle_timeline_event

    async def watched(self: AsyncClient, response: Any) -> None:
        if response.rooms.join:
            points.reached("timeline:before")
        await handle(self, response)
        if response.rooms.join:
            points.reached("timeline:after")

    def watched_one(self: AsyncClient, *args: Any) -> Any:
        decrypted = handle_one(self, *args)
        points.reached("timeline:event")
        return decrypted

    client._handle_joined_rooms = watched  # type: ignore[method-assign]
    client._handle_timeline_event = watched_one  # type: ignore[method-assign, assignment]


def slow_down(points: Points, database: type[Database], delay: float) -> None:
    """Let every call to a backend's database take so many seconds longer."""
    for name in ("find", "get", "ranges", "page", "commit"):
        setattr(database, name, _slow(points, getattr(database, name), delay))


def _slow(points: Points, method: Callable[..., Any], delay: float) -> Callable[..., Any]:
    @wraps(method)
    def slow(*args: Any, **kwargs: Any) -> Any:
        points.store_called(delay)
        return method(*args, **kwargs)

    return slow
