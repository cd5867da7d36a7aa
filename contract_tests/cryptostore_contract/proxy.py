"""A TCP proxy that misbehaves on demand, to stand between a backend and its server in fault tests.

    with Proxy(("127.0.0.1", 5432)) as proxy:
        backend = open_backend(f"postgresql://127.0.0.1:{proxy.port}/test")
        with proxy.silent():      # neither side hears the other any more; nothing is closed
            ...

It runs in a thread of its own, so that it serves blocking clients in the same process. Its methods may be called from
any thread and have taken effect when they return.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias, TypeVar

T = TypeVar("T")

#: Where the server is: host and port, or the path of a Unix socket.
Target: TypeAlias = tuple[str, int] | str

_CHUNK: Final = 65_536
#: SO_LINGER with no time: closing sends RST.
_RESET: Final = struct.pack("ii", 1, 0)


class Direction(enum.Enum):
    """Which way bytes go."""

    TO_SERVER = "to server"
    TO_CLIENT = "to client"


#: Told of all bytes before they are passed on: the connection's number, their direction, and the bytes.
Tap: TypeAlias = Callable[[int, Direction, bytes], None]


@dataclass
class _Limit:
    """How many bytes may still pass, and what happens then."""

    left: int
    then: Callable[[], None]


class Proxy:
    """Passes bytes between clients and one server until it is told to do something else.

    `delay` is the seconds that each chunk of bytes waits before it is passed on; it may be set at any time.
    """

    def __init__(self, target: Target, *, tap: Tap | None = None) -> None:
        self.delay = 0.0
        self._target = target
        self._tap = tap
        self._connections: set[_Connection] = set()
        self._accepted = 0
        self._limits: dict[Direction, _Limit] = {}
        self._listener: socket.socket | None = None
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        #: The port on 127.0.0.1 that clients connect to; it stays the same.
        self.port: Final = _free_port()
        self._do(self._listen())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def cut(self) -> None:
        """Reset every connection (RST to both sides), with whatever was on its way."""
        self._do(self._cut())

    def cut_after(self, size: int, direction: Direction = Direction.TO_SERVER) -> None:
        """Pass `size` more bytes on in this direction, counted over all connections, then cut them all, once."""
        self._limits[direction] = _Limit(size, self._reset_all)

    def silence_after(self, size: int, direction: Direction = Direction.TO_SERVER) -> None:
        """The same, but begin a silence instead of cutting."""
        self._limits[direction] = _Limit(size, self._flowing.clear)

    def refuse(self) -> None:
        """Refuse new connections, as a host does where nothing listens; those that are open stay."""
        self._do(self._stop_listening())

    def accept(self) -> None:
        """Take connections again after `refuse`."""
        self._do(self._listen())

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """`refuse`, then `accept`."""
        self.refuse()
        try:
            yield
        finally:
            self.accept()

    def silence(self) -> None:
        """Hold all bytes back, in both directions, on old connections and new. Nothing is closed."""
        self._do(self._hold())

    def speak(self, *, late_bytes: bool = False) -> None:
        """End a silence. What was held back arrives late, or else is lost with its connections, which are cut."""
        self._do(self._release(late_bytes))

    @contextlib.contextmanager
    def silent(self, *, late_bytes: bool = False) -> Iterator[None]:
        """`silence`, then `speak`."""
        self.silence()
        try:
            yield
        finally:
            self.speak(late_bytes=late_bytes)

    @property
    def accepted(self) -> int:
        """How many connections were accepted so far."""
        return self._accepted

    def close(self) -> None:
        """Cut everything and end the thread. Closing twice is no error."""
        if self._loop.is_closed():
            return
        self._do(self._shut_down())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self._listener.setblocking(False)
            self._loop.add_reader(self._listener, self._accept, self._listener)

    async def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            self._loop.remove_reader(listener)
            listener.close()

    async def _hold(self) -> None:
        self._flowing.clear()

    async def _release(self, late_bytes: bool) -> None:
        if not late_bytes:
            await self._cut()
        self._flowing.set()

    async def _cut(self) -> None:
        ended = [connection.reset() for connection in self._connections]
        await asyncio.gather(*ended, return_exceptions=True)
        # Their callbacks close the sockets.
        await asyncio.sleep(0)

    async def _shut_down(self) -> None:
        await self._stop_listening()
        await self._cut()

    def _accept(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        self._accepted += 1
        connection = _Connection(self._accepted, client)
        self._connections.add(connection)
        connection.task = self._loop.create_task(self._serve(connection))
        connection.task.add_done_callback(lambda _task: self._forget(connection))

    def _forget(self, connection: _Connection) -> None:
        # Also for a connection that was cut before its task ran at all.
        connection.close()
        self._connections.discard(connection)

    async def _serve(self, connection: _Connection) -> None:
        try:
            await self._flowing.wait()
            await self._loop.sock_connect(connection.server(self._target), self._target)
            async with asyncio.TaskGroup() as pumps:
                both = [pumps.create_task(self._pump(connection, direction)) for direction in Direction]
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                for pump in both:
                    pump.cancel()
        except* OSError:
            # No server, or one side was reset: the other side is told in the same way.
            connection.resets = True

    async def _pump(self, connection: _Connection, direction: Direction) -> None:
        source, sink = connection.way(direction)
        while chunk := await self._loop.sock_recv(source, _CHUNK):
            if self.delay:
                await asyncio.sleep(self.delay)
            await self._flowing.wait()
            reached = self._count(direction, len(chunk))
            if reached is not None:
                await self._pass_on(connection.number, direction, chunk[: reached.left], sink)
                chunk = chunk[reached.left :]
                reached.then()
                if connection.resets:
                    return
                await self._flowing.wait()
            await self._pass_on(connection.number, direction, chunk, sink)

    async def _pass_on(self, number: int, direction: Direction, chunk: bytes, sink: socket.socket) -> None:
        if not chunk:
            return
        if self._tap is not None:
            self._tap(number, direction, chunk)
        await self._loop.sock_sendall(sink, chunk)

    def _count(self, direction: Direction, size: int) -> _Limit | None:
        """The limit, if these bytes reach it."""
        limit = self._limits.get(direction)
        if limit is None:
            return None
        if size < limit.left:
            limit.left -= size
            return None
        return self._limits.pop(direction)

    def _reset_all(self) -> None:
        for connection in self._connections:
            connection.reset()


class _Connection:
    """One client's connection and the one to the server that belongs to it."""

    def __init__(self, number: int, client: socket.socket) -> None:
        self.number: Final = number
        self.task: asyncio.Task[None] | None = None
        #: Whether closing sends RST rather than what is left to send.
        self.resets = False
        client.setblocking(False)
        self._sockets = [client]

    def server(self, target: Target) -> socket.socket:
        """The socket that is to be connected to the server."""
        self._sockets.append(socket.socket(socket.AF_UNIX if isinstance(target, str) else socket.AF_INET))
        self._sockets[1].setblocking(False)
        return self._sockets[1]

    def way(self, direction: Direction) -> tuple[socket.socket, socket.socket]:
        """Where the bytes of a direction come from and go to."""
        client, server = self._sockets
        return (client, server) if direction is Direction.TO_SERVER else (server, client)

    def reset(self) -> asyncio.Task[None]:
        """Break both sides off. The task ends when that is done."""
        assert self.task is not None, "set where the connection is accepted"
        self.resets = True
        self.task.cancel()
        return self.task

    def close(self) -> None:
        """Close both sides."""
        for end in self._sockets:
            if self.resets and end.family != socket.AF_UNIX:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
