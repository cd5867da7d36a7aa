"""A TCP proxy that misbehaves on demand, to stand between a backend and its server in fault tests.

    with Proxy(("127.0.0.1", 5432)) as proxy:
        backend = open_backend(f"postgresql://127.0.0.1:{proxy.port}/test")
        with proxy.silent():      # neither side hears the other any more; nothing is closed
            ...
        reached = proxy.silence_after(100)      # a commit sends more than that, and stalls
        ...
        reached.wait()
        proxy.break_off()     # clients are told, the server is not
        ...
        proxy.deliver()       # the rest of the commit arrives late

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

from .ports import free_port

T = TypeVar("T")

#: Where the server is: host and port, or the path of a Unix socket.
Target: TypeAlias = tuple[str, int] | str

_CHUNK: Final = 65_536
#: Seconds of quiet after which a client has sent what it had to send.
_QUIET: Final = 0.05
#: Seconds in which a server ends a connection that its client has ended.
_PATIENCE: Final = 30.0
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
    reached: threading.Event


@dataclass
class _Late:
    """A server that does not know that its client is gone, and what the client had still sent to it."""

    server: socket.socket
    unsent: bytearray


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
        self._passed = dict.fromkeys(Direction, 0)
        self._late: list[_Late] = []
        self._listener: socket.socket | None = None
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        #: The port on 127.0.0.1 that clients connect to; it stays the same.
        self.port: Final = free_port()
        self._do(self._listen())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def cut(self) -> int:
        """Reset every connection (RST to both sides), with whatever was on its way. Returns how many there were."""
        return self._do(self._cut())

    def cut_after(self, size: int, direction: Direction = Direction.TO_SERVER) -> threading.Event:
        """Pass `size` more bytes on in this direction, counted over all connections, then cut them all, once.

        The event is set when that is done.
        """
        return self._limit(size, direction, self._reset_all)

    def silence_after(self, size: int, direction: Direction = Direction.TO_SERVER) -> threading.Event:
        """The same, but begin a silence instead of cutting."""
        return self._limit(size, direction, self._flowing.clear)

    def pass_all(self) -> None:
        """Take back what `cut_after` and `silence_after` have not come to yet."""
        self._limits.clear()

    def passed(self, direction: Direction) -> int:
        """How many bytes were passed on in this direction so far, on all connections."""
        return self._passed[direction]

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

    def break_off(self) -> None:
        """End a silence for the clients alone: they are reset, and new connections work.

        The server hears nothing of that. What clients had sent before they gave up is kept for `deliver`.
        """
        self._do(self._break_off())

    def deliver(self) -> None:
        """Hand the server what was kept by `break_off`, and then the end of the connections.

        Returns when the server has ended them, too, and so has done all that it was told. Raises TimeoutError.
        """
        self._do(self._deliver())

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

    async def _cut(self) -> int:
        ended = [connection.reset() for connection in self._connections]
        await asyncio.gather(*ended, return_exceptions=True)
        # Their callbacks close the sockets.
        await asyncio.sleep(0)
        return len(ended)

    async def _break_off(self) -> None:
        self._late += [late for late in await asyncio.gather(*map(_orphaned, list(self._connections))) if late]
        self._flowing.set()

    async def _deliver(self) -> None:
        late, self._late = self._late, []
        await asyncio.gather(*map(_hand_over, late))

    async def _shut_down(self) -> None:
        await self._stop_listening()
        await self._cut()
        for late in self._late:
            late.server.close()

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
            connection.unsent[direction] = chunk
            if self.delay:
                await asyncio.sleep(self.delay)
            await self._flowing.wait()
            reached = self._count(direction, len(chunk))
            if reached is not None:
                await self._pass_on(connection, direction, chunk[: reached.left], sink)
                chunk = connection.unsent[direction] = chunk[reached.left :]
                reached.then()
                reached.reached.set()
                if connection.resets:
                    return
                await self._flowing.wait()
            await self._pass_on(connection, direction, chunk, sink)

    async def _pass_on(self, connection: _Connection, direction: Direction, chunk: bytes, sink: socket.socket) -> None:
        connection.unsent[direction] = b""
        if not chunk:
            return
        if self._tap is not None:
            self._tap(connection.number, direction, chunk)
        self._passed[direction] += len(chunk)
        await self._loop.sock_sendall(sink, chunk)

    def _limit(self, size: int, direction: Direction, then: Callable[[], None]) -> threading.Event:
        limit = self._limits[direction] = _Limit(size, then, threading.Event())
        return limit.reached

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
        #: What was received last, and not passed on yet.
        self.unsent = dict.fromkeys(Direction, b"")
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

    def give_up_server(self) -> socket.socket | None:
        """Keep only the client's side. None for a connection that was never made to the server."""
        return self._sockets.pop() if len(self._sockets) > 1 else None

    def give_up_client(self) -> socket.socket:
        """Keep only the server's side."""
        return self._sockets.pop(0)

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


async def _orphaned(connection: _Connection) -> _Late | None:
    """Part a client from its server, which is not told of it."""
    server, client = connection.give_up_server(), connection.give_up_client()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    await asyncio.gather(connection.reset(), return_exceptions=True)
    unsent = bytearray(connection.unsent[Direction.TO_SERVER])
    with contextlib.closing(client), contextlib.suppress(OSError):
        while chunk := await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, _CHUNK), _QUIET):
            unsent += chunk
    return _Late(server, unsent) if server else None


async def _hand_over(late: _Late) -> None:
    """Send what is late, and read until the server has ended the connection."""
    with contextlib.closing(late.server):
        async with asyncio.timeout(_PATIENCE):
            await asyncio.gather(_read_out(late.server), _send_rest(late))


async def _read_out(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while await asyncio.get_running_loop().sock_recv(server, _CHUNK):
            pass


async def _send_rest(late: _Late) -> None:
    # A server may have ended a session long before.
    with contextlib.suppress(OSError):
        await asyncio.get_running_loop().sock_sendall(late.server, late.unsent)
        late.server.shutdown(socket.SHUT_WR)
