"""Two processes that take an account from each other for ever help nobody: whoever comes waits, longer each time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

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


def wait_for_turn(backend: Backend, account: records.Account, sleep: Callable[[float], None] = time.sleep) -> TakeOvers:
    """Wait, if this account changes hands too often. Returns what to write after taking it over."""
    try:
        with backend.open_store(account, Mode.READ) as store:
            before = read_history(store)
            owner = store.ownership.owner
    except AccountNotFound:
        return TakeOvers()
    if is_gone(owner):
        return before
    after = before.next(time.time())
    if after.pause:
        sleep(after.pause)
    return after


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
