"""How the demo's processes talk: one JSON document a line, over pipes."""

from __future__ import annotations

import json
import sys
from typing import Any, NamedTuple

#: The longest line that is read; a history of thousands of events is one line.
MAX_LINE = 64 * 1024 * 1024


class PartyConfig(NamedTuple):
    """All that a party is given. Whatever else it knows, it knows from its store."""

    url: str
    pickle_key: str
    user_id: str
    device_id: str
    room_id: str
    #: A new Megolm session after so many messages, so that room keys are always on their way.
    rotate_after: int
    #: Only read the room's whole history, then end.
    only_read: bool = False


class Connection:
    """A party's line to the relay: ask, wait for the answer."""

    def ask(self, method: str, **params: Any) -> Any:
        """The relay's answer. Ends the process when the relay is gone."""
        sys.stdout.write(encode({"method": method, "params": params}))
        sys.stdout.flush()
        return read()


def encode(document: Any) -> str:
    """`document` as one line."""
    return json.dumps(document) + "\n"


def read() -> Any:
    """The next document on standard input. Ends the process when there is none: the other side is gone."""
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    return json.loads(line)
