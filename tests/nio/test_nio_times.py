"""nio's naive local times against the records' UTC."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptostore.nio.times import to_local, to_utc


@pytest.fixture(params=["Europe/Berlin", "America/New_York", "Asia/Kolkata", "UTC"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def test_every_half_hour_of_a_year_comes_back(zone: str) -> None:
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    while moment.year == 2024:
        local = to_local(moment)
        assert local.tzinfo is None
        assert to_utc(local) == moment
        moment += timedelta(minutes=30)


def test_the_hour_that_comes_twice_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        earlier, later = (datetime(2024, 10, 27, hour, 30, tzinfo=UTC) for hour in (0, 1))
        assert to_local(earlier) == to_local(later) == datetime(2024, 10, 27, 2, 30)  # noqa: DTZ001  # nio's own kind
        assert (to_utc(to_local(earlier)), to_utc(to_local(later))) == (earlier, later)
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.datetimes(datetime(1971, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001  # as hypothesis wants them
def test_every_moment_comes_back_to_the_microsecond(moment: datetime) -> None:
    assert to_utc(to_local(moment)) == moment
