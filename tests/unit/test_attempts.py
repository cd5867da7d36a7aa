"""The attempts of one call."""

from __future__ import annotations

import time

import pytest

from cryptostore import BackendUnavailable
from cryptostore.store.attempts import Attempts

DEADLINE = 10.0


class Clock:
    """A clock that moves when it is waited for."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    return clock


def timeouts(clock: Clock, seconds: float) -> list[float]:
    """What attempts are given that take so long and are in vain."""
    given = []

    def attempt(timeout: float) -> None:
        given.append(timeout)
        clock.sleep(min(seconds, timeout))
        raise BackendUnavailable("away")

    with pytest.raises(BackendUnavailable):
        Attempts(DEADLINE).run(attempt)
    return given


def test_every_attempt_has_time_to_find_out_why_it_fails(clock: Clock) -> None:
    for hundredths in range(400):
        given = timeouts(clock, hundredths / 100)
        assert len(given) > 2
        assert min(given) >= DEADLINE / 20
