"""What a running client deletes of its account because it is old."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Final

from cryptostore.errors import ConfigurationError
from cryptostore.store.prunable import Rules

from .times import now

_NO_TIME: Final = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """What a running client deletes about once a day, in small batches beside its syncs; nothing by default.

    - `older_than`: Megolm sessions that came longer ago.
    - `unused_for`: Megolm sessions with which no message was read for so long.
    - `left_rooms`: Megolm sessions of encrypted rooms in which the account was not, whenever it looked, for so long.
    - `replay_pages`: replay pages with which no message was read for so long. An old message that the server sends
      again as a new event is then taken for a new one.
    - `olm_sessions`: of the Olm sessions with one device, all but so many that were used last.
    - `gone_devices`: devices that the server does not list any more, about which nobody decided anything, with their
      Olm sessions, if none of these was used for so long.
    - `answered_requests`: key requests whose session has come.
    - `missed_events`: news of missed events that no callback was told of for so long.

    What is in use is kept, and while the account has a key backup, Megolm sessions that are not there yet.
    Raises ConfigurationError for a value of another kind, and where replay pages would go before unused sessions.
    """

    older_than: timedelta | None = None
    unused_for: timedelta | None = None
    left_rooms: timedelta | None = None
    replay_pages: timedelta | None = None
    olm_sessions: int | None = None
    gone_devices: timedelta | None = None
    answered_requests: bool = False
    missed_events: timedelta | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            given = getattr(self, each.name)
            if given is not None and each.name not in ("olm_sessions", "answered_requests"):
                _check_time(each.name, given)
        kept: Any = self.olm_sessions
        if kept is not None and not (isinstance(kept, int) and kept >= 1):
            raise ConfigurationError("prune: olm_sessions must be 1 or more")
        self.rules(now())

    def rules(self, at: datetime) -> Rules:
        """What this deletes at a time, without rooms that were left. Raises ConfigurationError."""
        return Rules(
            received_before=_before(at, self.older_than),
            unused_since=_before(at, self.unused_for),
            replay_before=_before(at, self.replay_pages),
            olm_sessions=self.olm_sessions,
            gone_before=_before(at, self.gone_devices),
            answered_requests=self.answered_requests,
            missed_before=_before(at, self.missed_events),
        )


def _check_time(name: str, given: object) -> None:
    if not isinstance(given, timedelta) or given < _NO_TIME:
        raise ConfigurationError(f"prune: {name} must be a timedelta, and not below 0: timedelta(days=90)")


def _before(at: datetime, age: timedelta | None) -> datetime | None:
    try:
        return None if age is None else at - age
    except OverflowError:
        raise ConfigurationError(f"prune: {age} ago is before the calendar; give less") from None
