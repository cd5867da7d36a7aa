from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from cryptostore_contract.proxy import Direction, Proxy

SECONDS = 10.0


class Echo:
    """A server that sends back what it gets."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        #: What was received, by connection.
        self.heard: list[bytes] = []
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def hang_up(self) -> None:
        """End every connection."""
        for connection in self._connections:
            connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            number = len(self.heard)
            self.heard.append(b"")
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=[connection, number], daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection:
            try:
                while chunk := connection.recv(65_536):
                    self.heard[number] += chunk
                    connection.sendall(chunk)
            except OSError:
                pass


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.address) as standing_between:
        yield standing_between


def connected(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=SECONDS)


def received(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (chunk := client.recv(size - len(data))):
        data += chunk
    return data


def test_bytes_pass_both_ways_and_the_tap_sees_them(echo: Echo) -> None:
    seen: list[tuple[int, Direction, bytes]] = []
    with Proxy(echo.address, tap=lambda *facts: seen.append(facts)) as proxy, connected(proxy) as client:
        client.sendall(b"hello")
        assert received(client, 5) == b"hello"
    assert seen == [(1, Direction.TO_SERVER, b"hello"), (1, Direction.TO_CLIENT, b"hello")]
    assert proxy.accepted == 1


def test_a_million_bytes_pass_unchanged(proxy: Proxy) -> None:
    data = bytes(range(256)) * 4_000
    with connected(proxy) as client:
        sender = threading.Thread(target=client.sendall, args=[data])
        sender.start()
        assert received(client, len(data)) == data
        sender.join()


def test_the_end_of_one_side_is_passed_on(proxy: Proxy) -> None:
    with connected(proxy) as client:
        client.sendall(b"hello")
        assert received(client, 5) == b"hello"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""


def test_cut_resets_every_connection(proxy: Proxy) -> None:
    with connected(proxy) as first, connected(proxy) as second:
        for client in (first, second):
            client.sendall(b"x")
            assert received(client, 1) == b"x"
        assert proxy.cut() == 2
        for client in (first, second):
            with pytest.raises(ConnectionResetError):
                client.recv(1)
    with connected(proxy) as later:
        later.sendall(b"x")
        assert received(later, 1) == b"x"


def test_refusing_leaves_open_connections_alone(proxy: Proxy) -> None:
    with connected(proxy) as client:
        client.sendall(b"x")
        assert received(client, 1) == b"x"
        with proxy.refusing():
            with pytest.raises(ConnectionRefusedError):
                connected(proxy)
            client.sendall(b"y")
            assert received(client, 1) == b"y"
    connected(proxy).close()


def test_silence_holds_bytes_back_and_loses_them(proxy: Proxy) -> None:
    with connected(proxy) as client:
        with proxy.silent():
            client.sendall(b"x")
            client.settimeout(0.1)
            with pytest.raises(TimeoutError):
                client.recv(1)
        client.settimeout(SECONDS)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_bytes_held_back_may_come_late(proxy: Proxy) -> None:
    with connected(proxy) as client:
        with proxy.silent(late_bytes=True):
            client.sendall(b"x")
            client.settimeout(0.1)
            with pytest.raises(TimeoutError):
                client.recv(1)
        client.settimeout(SECONDS)
        assert received(client, 1) == b"x"


def test_a_connection_made_in_silence_is_served_after_it(proxy: Proxy) -> None:
    proxy.silence()
    with connected(proxy) as client:
        client.sendall(b"x")
        proxy.speak(late_bytes=True)
        assert received(client, 1) == b"x"


@pytest.mark.parametrize("direction", Direction)
def test_cut_after_passes_exactly_so_many_bytes(proxy: Proxy, echo: Echo, direction: Direction) -> None:
    passed: list[bytes] = []

    def note(_number: int, way: Direction, chunk: bytes) -> None:
        if way is direction:
            passed.append(chunk)

    with Proxy(echo.address, tap=note) as proxy, connected(proxy) as client:
        proxy.cut_after(3, direction)
        client.sendall(b"ab")
        assert received(client, 2) == b"ab"
        client.sendall(b"cd")
        with pytest.raises(ConnectionResetError):
            received(client, 2)
        assert b"".join(passed) == b"abc"


def test_silence_after_passes_exactly_so_many_bytes(echo: Echo) -> None:
    passed: list[bytes] = []

    def note(_number: int, way: Direction, chunk: bytes) -> None:
        if way is Direction.TO_SERVER:
            passed.append(chunk)

    with Proxy(echo.address, tap=note) as proxy, connected(proxy) as client:
        proxy.silence_after(3)
        client.sendall(b"abcdef")
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(1)
        assert b"".join(passed) == b"abc"
        client.settimeout(SECONDS)
        proxy.speak(late_bytes=True)
        assert received(client, 6) == b"abcdef"


def test_what_a_client_had_sent_is_delivered_after_it_was_broken_off(echo: Echo) -> None:
    passed: list[tuple[Direction, bytes]] = []
    with Proxy(echo.address, tap=lambda _number, *facts: passed.append(facts)) as proxy, connected(proxy) as client:
        reached = proxy.silence_after(2)
        client.sendall(b"abcd")
        assert reached.wait(SECONDS)
        client.sendall(b"efgh")
        proxy.break_off()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        with connected(proxy) as later:
            later.sendall(b"x")
            assert received(later, 1) == b"x"
        assert (Direction.TO_SERVER, b"ab") in passed
        assert b"c" not in b"".join(echo.heard)
        proxy.deliver()
        assert echo.heard == [b"ab" + b"cdefgh", b"x"]


def test_nothing_is_delivered_twice(echo: Echo) -> None:
    with Proxy(echo.address) as proxy, connected(proxy) as client:
        reached = proxy.silence_after(0)
        client.sendall(b"ab")
        assert reached.wait(SECONDS)
        proxy.break_off()
        proxy.deliver()
        proxy.deliver()
        assert echo.heard == [b"ab"]


def test_late_bytes_for_a_server_that_is_gone_are_no_error(echo: Echo) -> None:
    with Proxy(echo.address) as proxy, connected(proxy) as client:
        reached = proxy.silence_after(1)
        client.sendall(b"bye")
        assert reached.wait(SECONDS)
        proxy.break_off()
        echo.hang_up()
        proxy.deliver()


def test_a_delay_holds_every_chunk_up_and_changes_none(proxy: Proxy) -> None:
    with connected(proxy) as client:
        proxy.delay = 0.2
        started = time.monotonic()
        client.sendall(b"a")
        assert received(client, 1) == b"a"
        # There and back.
        assert time.monotonic() - started >= 0.4
        client.sendall(b"b")
        client.sendall(b"c")
        assert received(client, 2) == b"bc"


def test_passed_counts_each_direction(proxy: Proxy) -> None:
    with connected(proxy) as client:
        client.sendall(b"hello")
        assert received(client, 5) == b"hello"
    assert (proxy.passed(Direction.TO_SERVER), proxy.passed(Direction.TO_CLIENT)) == (5, 5)


def test_a_limit_that_was_taken_back_cuts_nothing(proxy: Proxy) -> None:
    with connected(proxy) as client:
        reached = proxy.cut_after(3)
        proxy.pass_all()
        client.sendall(b"hello")
        assert received(client, 5) == b"hello"
        assert not reached.is_set()


def test_without_a_server_the_client_is_reset(echo: Echo) -> None:
    # Connecting succeeds or is reset already, depending on who is faster.
    with Proxy(("127.0.0.1", 1)) as proxy, pytest.raises(ConnectionResetError), connected(proxy) as client:
        client.recv(1)


def test_closing_twice_is_no_error(echo: Echo) -> None:
    proxy = Proxy(echo.address)
    proxy.close()
    proxy.close()
