"""A whole backup as it comes from the homeserver, in bounded memory: `GET /room_keys/keys` has no pages."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import ijson

#: What an entry needs: `rooms`, room id, `sessions`, session id, `session_data`, name of a part.
_PART_DEPTH: Final = 6
_ENTRY_DEPTH: Final = 4
#: No entry is so long; what is would be kept in memory whole.
_LONGEST_ENTRY: Final = 1024 * 1024


class Entry(NamedTuple):
    """A session's entry as it came, of which only the parts of `session_data` are kept."""

    room_id: str
    session_id: str
    content: dict[str, Any]


class EntryStream:
    """Finds the entries in a body that comes in pieces."""

    def __init__(self) -> None:
        self._path: list[str | None] = []
        self._parts: dict[str, Any] = {}
        self._found: list[Entry] = []
        self._since_entry = 0
        self._parser = ijson.basic_parse_coro(_Receiver(self._take))

    def feed(self, piece: bytes) -> list[Entry]:
        """The entries that end in this piece. Raises ValueError for what is no JSON, or has an endless entry."""
        self._since_entry += len(piece)
        if piece:
            # An empty one would be the end.
            self._send(piece)
        found, self._found = self._found, []
        if found:
            self._since_entry = 0
        elif self._since_entry > _LONGEST_ENTRY + len(piece):
            raise ValueError("an entry of it does not end")
        return found

    def _send(self, piece: bytes) -> None:
        try:
            self._parser.send(piece)
        except (ijson.JSONError, StopIteration):
            raise ValueError("it is not JSON") from None

    def end(self) -> None:
        """The body has ended. Raises ValueError if it is cut off."""
        try:
            self._parser.close()
        except ijson.JSONError:
            raise ValueError("it is cut off") from None

    def _take(self, event: str, value: Any) -> None:
        if event in {"start_map", "start_array"}:
            self._path.append(None)
        elif event in {"end_map", "end_array"}:
            self._path.pop()
            if len(self._path) == _ENTRY_DEPTH:
                self._end_entry()
        elif event == "map_key":
            self._path[-1] = value
        elif len(self._path) == _PART_DEPTH and self._is_part():
            self._parts[str(self._path[-1])] = value

    def _is_part(self) -> bool:
        return self._is_in_sessions() and self._path[4] == "session_data"

    def _is_in_sessions(self) -> bool:
        return self._path[0] == "rooms" and self._path[2] == "sessions"

    def _end_entry(self) -> None:
        _, room_id, _, session_id = self._path
        if self._is_in_sessions() and room_id is not None and session_id is not None:
            self._found.append(Entry(room_id, session_id, {"session_data": self._parts}))
        self._parts = {}


class _Receiver:
    """What ijson sends its events to."""

    def __init__(self, take: Any) -> None:
        self._take = take

    def send(self, event: tuple[str, Any]) -> None:
        self._take(*event)
