"""Ending calls that outlast their time.

A frozen server or a silent network raises nothing: no statement timeout, keepalive or liveness check ends the wait.
Only a socket that is shut down under the waiting driver does.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Final

from cryptostore.errors import BackendUnavailable

from .connecting import Connection


class _Guard:
    """One call: its connection's socket, and when its time is over."""

    __slots__ = ("ends", "socket")

    def __init__(self, connection: Connection, ends: float) -> None:
        try:
            self.socket: Final = connection.hold
        except OSError as error:
            raise BackendUnavailable(
                f"cannot watch over a connection ({error.strerror}); has this process too many files open?",
                outcome_unknown=False,
            ) from error
        self.ends: Final = ends


class Watchdog:
    """One thread that watches over all calls of one backend."""

    def __init__(self) -> None:
        # Not through the condition: its methods are Python's, in the middle of which an interrupt may come.
        self._guard = threading.RLock()
        self._changed = threading.Condition(self._guard)
        self._guards: set[_Guard] = set()
        self._wakes = 0.0
        self._thread: threading.Thread | None = None
        self._stopped = False

    @contextlib.contextmanager
    def guard(self, connection: Connection, ends: float) -> Iterator[None]:
        """Shut the connection's socket down at `ends` (of the monotonic clock) unless the context was left before."""
        guard = _Guard(connection, ends)
        try:
            self._add(guard)
            yield
        finally:
            with self._guard:
                self._guards.discard(guard)
                if self._stopped:
                    self._changed.notify()

    def stop(self) -> None:
        """End the thread when the last call has ended."""
        with self._guard:
            self._stopped = True
            self._changed.notify()

    def _add(self, guard: _Guard) -> None:
        with self._guard:
            self._guards.add(guard)
            if self._thread is None:
                thread = threading.Thread(target=self._watch, name="cryptostore-watchdog", daemon=True)
                thread.start()
                self._thread = thread
            elif guard.ends < self._wakes:
                self._changed.notify()

    def _watch(self) -> None:
        with self._guard:
            while self._guards or not self._stopped:
                now = time.monotonic()
                for guard in [guard for guard in self._guards if guard.ends <= now]:
                    self._guards.discard(guard)
                    with contextlib.suppress(OSError):
                        guard.socket.shutdown(socket.SHUT_RDWR)
                # One that is added later wakes this thread only if it ends earlier.
                self._wakes = min((guard.ends for guard in self._guards), default=now + 3600)
                self._changed.wait(max(0.0, self._wakes - now))
            self._thread = None
