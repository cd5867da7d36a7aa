"""The time, and nio's naive local times and the records' aware UTC times, converted where they meet."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def to_utc(local: datetime) -> datetime:
    """nio's time, which is naive and local, as aware UTC. Its `fold` tells the two 2:30s of an autumn night apart."""
    return local.astimezone(UTC)


def to_local(moment: datetime) -> datetime:
    """An aware time as nio wants it: naive and local, with the `fold` that leads back to the same moment.

    Raises ValueError or OverflowError for a moment that the local calendar does not reach.
    """
    local = moment.astimezone().replace(tzinfo=None)
    # astimezone() forgets the fold, because its result has a fixed offset.
    return local if to_utc(local) == moment else local.replace(fold=1)
