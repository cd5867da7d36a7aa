"""Pauses that grow."""

from __future__ import annotations

import pytest

from cryptostore.nio.client.pauses import growing_pause


@pytest.mark.parametrize(
    ("failures", "pause"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (7, 30.0), (1_000, 30.0), (1_000_000, 30.0)]
)
def test_a_pause_doubles_up_to_the_longest_however_long_it_goes_on(failures: int, pause: float) -> None:
    assert growing_pause(failures, 0.5, 30.0) == pause
