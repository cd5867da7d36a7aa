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


class Proxy:
    """Passes bytes between clients and one server until it is told to do something else.

    `delay` is the seconds that each chunk of bytes waits before it is passed on; it may be set at any time.
    """

    def __init__(self, target: Target, *, tap: Tap | None = None) -> None:
        self.delay = 0.0
        self._target = target
        self._tap = tap
        self._connections: dict[int, _Connection] = {}
        self._accepted = 0
        self._cut_after: dict[Direction, int] = {}
        self._listener: asyncio.Server | None = None
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
        self._cut_after[direction] = size

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
            self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    async def _hold(self) -> None:
        self._flowing.clear()

    async def _release(self, late_bytes: bool) -> None:
        if not late_bytes:
            await self._cut()
        self._flowing.set()

    async def _cut(self) -> None:
        connections = list(self._connections.values())
        for connection in connections:
            connection.reset()
        for connection in connections:
            await connection.ended.wait()

    async def _shut_down(self) -> None:
        await self._stop_listening()
        await self._cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._accepted += 1
        number = self._accepted
        connection = _Connection(writer)
        self._connections[number] = connection
        try:
            await self._flowing.wait()
            server_reader, server_writer = await self._connect()
            connection.writers.append(server_writer)
            connection.pumps += [
                asyncio.ensure_future(self._pump(number, Direction.TO_SERVER, reader, server_writer)),
                asyncio.ensure_future(self._pump(number, Direction.TO_CLIENT, server_reader, writer)),
            ]
            await asyncio.wait(connection.pumps, return_when=asyncio.FIRST_COMPLETED)
        except (OSError, asyncio.CancelledError):
            # No server, or a reset: either way this connection is over.
            connection.linger()
        finally:
            del self._connections[number]
            await connection.finish()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, str):
            return await asyncio.open_unix_connection(self._target)
        return await asyncio.open_connection(*self._target)

    async def _pump(
        self, number: int, direction: Direction, source: asyncio.StreamReader, sink: asyncio.StreamWriter
    ) -> None:
        while chunk := await source.read(_CHUNK):
            if self.delay:
                await asyncio.sleep(self.delay)
            await self._flowing.wait()
            passed = self._allowed(direction, chunk)
            if self._tap is not None:
                self._tap(number, direction, passed)
            sink.write(passed)
            await sink.drain()
            if len(passed) < len(chunk):
                self._reset_all()

    def _allowed(self, direction: Direction, chunk: bytes) -> bytes:
        """The part of the chunk that `cut_after` lets through."""
        if direction not in self._cut_after:
            return chunk
        left = self._cut_after.pop(direction)
        if len(chunk) < left:
            self._cut_after[direction] = left - len(chunk)
            return chunk
        # The byte that reaches the limit is never sent, so that even a limit of the whole length cuts.
        return chunk[: max(0, left - 1)]

    def _reset_all(self) -> None:
        for connection in self._connections.values():
            connection.reset()


class _Connection:
    """One client's connection and the one to the server that belongs to it."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.writers = [client]
        self.pumps: list[asyncio.Future[None]] = []
        self.ended: Final = asyncio.Event()
        self._server_task = asyncio.current_task()

    def reset(self) -> None:
        """Break both sides off at once."""
        if self._server_task is not None:
            self._server_task.cancel()

    def linger(self) -> None:
        """Let closing send RST instead of what is left to send."""
        for writer in self.writers:
            plain = writer.get_extra_info("socket")
            if plain is not None and plain.family != socket.AF_UNIX:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def finish(self) -> None:
        """Close what is still open and collect the pumps."""
        for pump in self.pumps:
            pump.cancel()
        await asyncio.gather(*self.pumps, return_exceptions=True)
        for writer in self.writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        self.ended.set()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
