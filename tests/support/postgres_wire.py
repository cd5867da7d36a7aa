"""Reading what a PostgreSQL client sends: a tap for the proxy that decodes the frontend protocol."""

from __future__ import annotations

import struct
from collections import defaultdict
from typing import Final, NamedTuple

from cryptostore_contract.proxy import Direction

_PROTOCOL_3: Final = 3
#: Messages after which the client waits for the server's answer.
_WAITS: Final = {b"S": "Sync", b"Q": "Query", b"H": "Flush"}


class Statement(NamedTuple):
    """One statement as it was sent: its text, the name it was prepared under, if any, and its parameters."""

    text: str
    name: str = ""
    parameters: tuple[Parameter, ...] = ()


class Parameter(NamedTuple):
    """One parameter's bytes, or None for NULL, and whether they are in binary."""

    data: bytes | None
    binary: bool

    def integer(self) -> int:
        """What an integer parameter says."""
        assert self.data is not None
        return int.from_bytes(self.data, "big", signed=True) if self.binary else int(self.data)


class Wire:
    """Everything that clients sent, on all of their connections, in the order of its arrival."""

    def __init__(self) -> None:
        #: Every statement.
        self.statements: list[Statement] = []
        #: What the client waited for, by message name. A Flush behind a Sync asks for nothing more.
        self.waits: list[str] = []
        #: Message types that were neither statements nor waits, such as function calls and COPY data.
        self.others: set[bytes] = set()
        self._unread: dict[int, bytes] = defaultdict(bytes)
        self._started: set[int] = set()
        self._prepared: dict[int, tuple[str, str]] = {}
        self._last: dict[int, bytes] = {}

    def __call__(self, connection: int, direction: Direction, chunk: bytes) -> None:
        """The proxy's tap."""
        if direction is Direction.TO_SERVER:
            self._unread[connection] += chunk
            while self._read_one(connection):
                pass

    def forget(self) -> None:
        """Begin again, with what is sent from now on."""
        self.statements.clear()
        self.waits.clear()
        self.others.clear()

    def _read_one(self, connection: int) -> bool:
        data = self._unread[connection]
        kind_size = 1 if connection in self._started else 0
        if len(data) < kind_size + 4:
            return False
        (size,) = struct.unpack_from("!i", data, kind_size)
        if len(data) < kind_size + size:
            return False
        self._unread[connection] = data[kind_size + size :]
        body = data[kind_size + 4 : kind_size + size]
        if kind_size:
            self._take(connection, data[:1], body)
        elif struct.unpack_from("!h", body)[0] == _PROTOCOL_3:
            # What came before were requests for encryption.
            self._started.add(connection)
        return True

    def _take(self, connection: int, kind: bytes, body: bytes) -> None:
        if kind == b"P":
            name, text, _ = body.split(b"\0", 2)
            self._prepared[connection] = (name.decode(), text.decode())
        elif kind == b"B":
            prepared_as, prepared = self._prepared[connection]
            self.statements.append(Statement(prepared, prepared_as, _parameters(body)))
        elif kind == b"Q":
            self.statements.append(Statement(body.rstrip(b"\0").decode()))
        elif kind not in _WAITS:
            self.others.add(kind)
        if kind in _WAITS and (self._last.get(connection), kind) != (b"S", b"H"):
            self.waits.append(_WAITS[kind])
        self._last[connection] = kind


def _parameters(body: bytes) -> tuple[Parameter, ...]:
    """The parameters in a Bind message."""
    _portal, _statement, rest = body.split(b"\0", 2)
    (count,) = struct.unpack_from("!h", rest)
    formats = struct.unpack_from(f"!{count}h", rest, 2)
    at = 2 + 2 * count
    (count,) = struct.unpack_from("!h", rest, at)
    at += 2
    found: list[Parameter] = []
    for number in range(count):
        (size,) = struct.unpack_from("!i", rest, at)
        at += 4
        # No format stands for text everywhere, and one for all.
        binary = bool(formats[number if len(formats) > 1 else 0]) if formats else False
        found.append(Parameter(None if size < 0 else rest[at : at + size], binary))
        at += max(0, size)
    return tuple(found)
