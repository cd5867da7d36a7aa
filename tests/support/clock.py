"""Times: one that passes when a test says so, in the place of the real one, for no test waits for hours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest


def to_microseconds(time: datetime) -> int:
    """An aware time as databases keep it: microseconds since 1970 (UTC)."""
    return (time - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)


class Clock:
    """The time, when it is called."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def passes(self, **time: float) -> None:
        """Let this much time pass, as of `timedelta`."""
        self.time += timedelta(**time)


class AttemptsClock:
    """The time of the attempts of a call, which passes when one sleeps or a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        """The time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let this much time pass."""
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> AttemptsClock:
    """The attempts have such a time."""
    clock = AttemptsClock()
    monkeypatch.setattr("cryptostore.store.attempts.time", clock)
    return clock
