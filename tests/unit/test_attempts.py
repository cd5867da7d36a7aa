"""The attempts of one call."""

from __future__ import annotations

import pytest

from clock import AttemptsClock, clock
from cryptostore import BackendUnavailable
from cryptostore.store.attempts import Attempts

__all__ = ["clock"]

DEADLINE = 10.0


def timeouts(clock: AttemptsClock, seconds: float) -> list[float]:
    """What attempts are given that take so long and are in vain."""
    given = []

    def attempt(timeout: float) -> None:
        given.append(timeout)
        clock.sleep(min(seconds, timeout))
        raise BackendUnavailable("away")

    with pytest.raises(BackendUnavailable):
        Attempts(DEADLINE).run(attempt)
    return given


def test_every_attempt_has_time_to_find_out_why_it_fails(clock: AttemptsClock) -> None:
    for hundredths in range(400):
        given = timeouts(clock, hundredths / 100)
        assert len(given) > 2
        assert min(given) >= DEADLINE / 20
