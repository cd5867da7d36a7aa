"""Times: one that passes when a test says so, in the place of the real one, for no test waits for hours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


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
