"""Two processes that take an account from each other for ever help nobody: whoever comes waits, longer each time."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from cryptostore import records
from cryptostore.errors import AccountNotFound
from cryptostore.interface import Backend, CryptoStore, Mode
from cryptostore.owners import is_gone

#: So many take-overs in so many seconds need no pause.
_FREE: Final = 3
_WINDOW: Final = 60.0
_LONGEST_PAUSE: Final = 60.0

_KEY: Final = ("client", "take-overs")


@dataclass
class TakeOvers:
    """When the account was taken from a process that may have been alive, and how long the last one waited."""

    times: list[float] = field(default_factory=list)
    pause: float = 0.0

    def record(self) -> records.Value:
        """What to write after taking the account over."""
        return records.Value(*_KEY, json.dumps({"times": self.times, "pause": self.pause}).encode())

    def next(self, now: float) -> TakeOvers:
        """With one more, at `now`, and the pause that it has to make."""
        times = [at for at in self.times if now - _WINDOW - self.pause < at <= now] + [now]
        if len(times) <= _FREE:
            return TakeOvers(times)
        return TakeOvers(times, min(max(1.0, 2 * self.pause), _LONGEST_PAUSE))


class Turn(NamedTuple):
    """The next take-over: the seconds to wait before it, what to write after it, and from whom it is, if anybody."""

    pause: float
    history: TakeOvers
    owner: str = ""


def next_turn(backend: Backend, account: records.Account) -> Turn:
    """When it is this process's turn to take the account over."""
    try:
        with backend.open_store(account, Mode.READ) as store:
            before = read_history(store)
            owner = store.ownership.owner
    except AccountNotFound:
        return Turn(0.0, TakeOvers())
    if is_gone(owner):
        return Turn(0.0, before)
    after = before.next(time.time())
    return Turn(after.pause, after, owner)


def read_history(store: CryptoStore) -> TakeOvers:
    """What the last owner wrote down."""
    stored = store.get(records.Value, [_KEY]).get(_KEY)
    return _parse(stored.value) if stored else TakeOvers()


def _parse(value: bytes) -> TakeOvers:
    try:
        parsed = json.loads(value)
        return TakeOvers([float(at) for at in parsed["times"]], float(parsed["pause"]))
    except (ValueError, TypeError, KeyError):
        # It protects nobody's keys: begin anew.
        return TakeOvers()
