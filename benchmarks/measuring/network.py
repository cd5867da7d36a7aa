"""A network between a client and its server: a TCP proxy that is late, and counts round trips.

Threads and blocking sockets, since an event loop sleeps in whole milliseconds. What arrives is handed on `delay`
seconds later, however much it is: a long line, not a narrow one.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Final, TypeAlias

#: Host and port, or the path of a Unix socket.
Address: TypeAlias = tuple[str, int] | str

_CHUNK: Final = 65_536


class Network:
    """A port on this machine behind which the server at `address` is, `delay` seconds away in each direction.

    A round trip begins where a client sends something after it was sent something, or for the first time: a pipeline
    is one, and so is a COPY.
    """

    def __init__(self, address: Address, delay: float) -> None:
        self._address = address
        self._delay = delay
        self._asked: list[float] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: Final[int] = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="network", daemon=True).start()

    def close(self) -> None:
        """Take no connections any more."""
        # Closing alone does not wake the thread that waits for one.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def round_trips(self, began: float, ended: float) -> int:
        """How many began between two times of the monotonic clock, on all connections."""
        return sum(began <= asked <= ended for asked in self._asked)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX if isinstance(self._address, str) else socket.AF_INET)
        answered = threading.Event()
        answered.set()

        def note_question() -> None:
            if answered.is_set():
                self._asked.append(time.monotonic())
                answered.clear()

        with client, server, contextlib.suppress(OSError):
            server.connect(self._address)
            ways = (
                _Way(client, server, self._delay, note_question, _ignore),
                _Way(server, client, self._delay, _ignore, answered.set),
            )
            for way in ways:
                way.start()
            for way in ways:
                way.join()


class _Way:
    """One direction of a connection, in two threads: what is late does not hold up what arrives after it."""

    def __init__(
        self,
        source: socket.socket,
        sink: socket.socket,
        delay: float,
        on_arrival: Callable[[], None],
        on_delivery: Callable[[], None],
    ) -> None:
        self._source, self._sink, self._delay = source, sink, delay
        self._on_arrival, self._on_delivery = on_arrival, on_delivery
        #: When each chunk is due, and the chunk; an empty one is the end.
        self._under_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._receive, self._deliver)]

    def start(self) -> None:
        if self._source.family != socket.AF_UNIX:
            # Or the kernel waits for more to send.
            self._source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _receive(self) -> None:
        chunk = b"none yet"
        while chunk:
            chunk = _received(self._source)
            if chunk:
                self._on_arrival()
            self._under_way.put((time.monotonic() + self._delay, chunk))

    def _deliver(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                due, chunk = self._under_way.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not chunk:
                    break
                # Before: the answer to it may come while this thread waits for its turn.
                self._on_delivery()
                self._sink.sendall(chunk)
        with contextlib.suppress(OSError):
            self._sink.shutdown(socket.SHUT_WR)


def _ignore() -> None:
    """Deliveries are of no interest here."""


def _received(source: socket.socket) -> bytes:
    """What arrives next; nothing at the end, however it comes."""
    try:
        return source.recv(_CHUNK)
    except OSError:
        return b""
