"""Back off when two processes keep taking the same account over."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from cryptostore import records
from cryptostore.store.owners import is_gone

#: So many take-overs in so many seconds need no pause.
_FREE: Final = 3
_WINDOW: Final = 60.0
_LONGEST_PAUSE: Final = 60.0

#: The record in which an owner writes down the take-overs that it knows of.
HISTORY: Final = ("client", "take-overs")


@dataclass
class TakeOvers:
    """When the account was taken from a process that may have been alive, and how long the last one waited."""

    times: list[float] = field(default_factory=list)
    pause: float = 0.0

    def record(self) -> records.Value:
        """What to write after taking the account over."""
        return records.Value(*HISTORY, json.dumps({"times": self.times, "pause": self.pause}).encode())

    def next(self, now: float) -> TakeOvers:
        """With one more, at `now`, and the pause that it has to make."""
        times = [at for at in self.times if now - _WINDOW - self.pause < at <= now] + [now]
        if len(times) <= _FREE:
            return TakeOvers(times)
        return TakeOvers(times, min(max(1.0, 2 * self.pause), _LONGEST_PAUSE))


class Turn(NamedTuple):
    """The next take-over: the seconds to wait before it, what to write after it, and the present owner if it lives."""

    pause: float
    history: TakeOvers
    owner: str = ""


class NotYetError(Exception):
    """This process has to wait before it takes the account over."""

    def __init__(self, turn: Turn) -> None:
        super().__init__(f"the account changes hands too often; it is taken over in {turn.pause:g} s")
        self.turn = turn


def next_turn(owner: str, written: records.Value | None) -> Turn:
    """When it is this process's turn, after this owner and what it wrote down under `HISTORY`."""
    before = _parse(written.value) if written else TakeOvers()
    if is_gone(owner):
        return Turn(0.0, before)
    after = before.next(time.time())
    return Turn(after.pause, after, owner)


def _parse(value: bytes) -> TakeOvers:
    try:
        parsed = json.loads(value)
        return TakeOvers([float(at) for at in parsed["times"]], float(parsed["pause"]))
    except (ValueError, TypeError, KeyError):
        # No key depends on it, so an unreadable history is replaced by an empty one.
        return TakeOvers()
