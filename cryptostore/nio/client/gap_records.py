"""The gaps of an account: what is kept of them, and what was missed for good."""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from nio import SyncResponse

from cryptostore.logs import logger
from cryptostore.nio.pickles import if_valid
from cryptostore.nio.standins import stored_token
from cryptostore.nio.times import now
from cryptostore.plugins.observers import notify
from cryptostore.records import GapPart, MissedEvents, TimelineGap

from .buffer import BufferedStorage
from .gap_messages import PAGE
from .kept import KeptRecords
from .memberships import JOIN, UNKNOWN, own_memberships

_DIGEST: Final = 12
#: What to keep with the token of a sync: a record for each room whose timeline is not handled with it, by its id.
Plan = Mapping[str, TimelineGap]

#: Page sizes, each for a walk of its own: where a page ends, events of another branch may be passed over.
_SIZES: Final = (PAGE, 700, 450)

_log: Final = logger(__name__)


class MissedCause(enum.StrEnum):
    """Why events reached no callback."""

    #: They were more than `gap_limit`.
    LIMIT = "limit"
    #: They were older than `gap_age`.
    AGE = "age"
    #: The homeserver does not give them: it has forgotten the place, or this account is not in the room any more.
    REFUSED = "refused"
    #: The homeserver's pages did not end, or came again.
    ENDLESS = "endless"
    #: The homeserver put another room's events into its answer.
    FOREIGN = "foreign"
    #: Events that are known to be there did not come.
    INCOMPLETE = "incomplete"
    #: The record of the gap could not be read.
    UNREADABLE = "unreadable"


def digest(event: Any) -> bytes:
    """What an event is remembered by."""
    source = getattr(event, "source", None) or {}
    name = source.get("event_id")
    text = name if isinstance(name, str) else json.dumps(source, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:_DIGEST]


class Gaps:
    """The gaps that are open, and what was missed. What changes is written with the next flush."""

    def __init__(self, storage: BufferedStorage) -> None:
        self._account = storage.account
        self.open = KeptRecords(storage, TimelineGap)
        self._parts = KeptRecords(storage, GapPart)
        self.missed = KeptRecords(storage, MissedEvents)
        #: Called when there is something new to do.
        self.on_change: Callable[[], None] = lambda: None
        for kept in (self.open, self.missed):
            for key in kept.unreadable:
                kept.forget(key)
                self._miss(str(key[0]), MissedCause.UNREADABLE, "", "", 0)

    @property
    def kept(self) -> tuple[KeptRecords[Any], ...]:
        """What a flush writes."""
        return self.open, self._parts, self.missed

    def gap(self, room_id: str) -> TimelineGap | None:
        """The open gap of a room."""
        return self.open.rows.get((room_id,))

    def plan(
        self,
        response: SyncResponse,
        since: str,
        known_rooms: Collection[str],
        user_id: str,
        *,
        timeline_filter: Any = None,
        oldest: int = 0,
    ) -> Plan:
        """Which rooms of a sync since `since` have gaps; empty for an account's first sync. Nothing is kept yet."""
        held: dict[str, TimelineGap] = {}
        for room_id, info in response.rooms.join.items():
            timeline = info.timeline
            gap = self.gap(room_id)
            if gap is None and timeline.limited and since:
                gap = if_valid(partial(_new_gap, room_id, since, response.next_batch, timeline_filter, oldest))
                is_known = room_id in known_rooms and not own_memberships([*info.state, *timeline.events], user_id)
                gap = gap and replace(gap, membership=JOIN if is_known else UNKNOWN)
                newest = _newest(timeline.events)
                gap = gap and replace(gap, newest=newest, newest_until=newest)
            elif gap is not None and (timeline.events or timeline.limited):
                # What another filter lets through may not be in this gap's pages.
                is_same = gap.filter == _shown(timeline_filter)
                newest = (_newest(timeline.events) or gap.newest) if is_same else b""
                gap = replace(gap, latest=stored_token(response.next_batch), newest=newest)
            if gap is not None:
                held[room_id] = gap
        return held

    def keep(self, plan: Plan) -> int:
        """Keep what was planned, in the batch of the sync's token. Returns how many gaps are new."""
        new = [gap for gap in plan.values() if gap.key not in self.open.rows]
        for gap in plan.values():
            if self.open.rows.get(gap.key) != gap:
                self.open.put(gap)
        if plan:
            self.on_change()
        for gap in new:
            notify("cryptostore_gap_found", account=self._account, room_id=gap.room_id)
        return len(new)

    def passed(self, room_id: str) -> set[bytes]:
        """The digests of the events that were handed on, or skipped for good."""
        return {each for page in self._pages(room_id) for each in page}

    def may_have_lost_some(self, room_id: str) -> bool:
        """Whether the walk had more than one page: where one ends, events of another branch may be passed over."""
        gap = self.open.rows[room_id,]
        sizes = [len(page) for page in self._pages(room_id) if page]
        return len(sizes) > 1 or any(size >= page_size(gap) for size in sizes)

    def _pages(self, room_id: str) -> list[list[bytes]]:
        gap = self.open.rows[room_id,]
        parts = [self._parts.rows.get((room_id, part)) for part in range(gap.parts)]
        return [*(_split(part.passed) for part in parts if part is not None), _split(gap.passed)]

    def move(self, room_id: str, events: Iterable[bytes], **changes: Any) -> None:
        """These events were handed on, or skipped for good."""
        gap = self.open.rows[room_id,]
        self.open.put(replace(gap, passed=gap.passed + b"".join(events), **changes))

    def turn_page(self, room_id: str, cursor: str) -> None:
        """A page was handed on whole; the next one begins at `cursor`."""
        gap = self.open.rows[room_id,]
        self._parts.put(GapPart(room_id, gap.parts, gap.passed))
        self.open.put(replace(gap, cursor=stored_token(cursor), passed=b"", parts=gap.parts + 1))

    def walk_again(self, room_id: str) -> bool:
        """Begin again with another page size. False if all were tried."""
        gap = self.open.rows[room_id,]
        sizes = _SIZES[_SIZES.index(page_size(gap)) + 1 :]
        if not sizes:
            return False
        self.turn_page(room_id, gap.since)
        self.open.put(replace(self.open.rows[room_id,], cursor=gap.since, page_size=sizes[0]))
        return True

    def close(self, room_id: str) -> None:
        """All until `until` was handed on: go on from there, if more has come since, or forget the gap."""
        events = len(self.passed(room_id))
        self._go_on_behind(room_id)
        notify("cryptostore_gap_filled", account=self._account, room_id=room_id, events=events)

    def _go_on_behind(self, room_id: str) -> None:
        gap = self.open.rows[room_id,]
        self.drop_skipped(room_id)
        for part in range(gap.parts):
            self._parts.drop((room_id, part))
        if gap.latest == gap.until:
            self.open.drop(gap.key)
            return
        self.open.put(
            TimelineGap(
                room_id,
                since=gap.until,
                until=gap.latest,
                latest=gap.latest,
                cursor=gap.until,
                newest_until=gap.newest,
                newest=gap.newest,
                membership=gap.membership,
                filter=gap.filter,
            )
        )

    def give_up(self, room_id: str, cause: MissedCause, *, whole: bool) -> None:
        """What was not handed on yet was missed: all of it, or as far as `until`."""
        gap = self.open.rows[room_id,]
        if whole:
            gap = replace(gap, until=gap.latest)
            self.open.put(gap)
        self._miss(room_id, cause, gap.since, gap.until, 0)
        self._go_on_behind(room_id)

    def miss(self, room_id: str, cause: MissedCause, count: int = 0) -> None:
        """Some events of an open gap were missed."""
        gap = self.open.rows[room_id,]
        self._miss(room_id, cause, gap.since, gap.until, count)

    def drop_skipped(self, room_id: str) -> None:
        """No more events of a gap are too old: those that were are missed."""
        gap = self.open.rows[room_id,]
        if gap.skipped:
            self.miss(room_id, MissedCause.AGE, gap.skipped)
        if gap.oldest:
            self.open.put(replace(gap, oldest=0, skipped=0))

    def _miss(self, room_id: str, cause: MissedCause, since: str, until: str, count: int) -> None:
        if any(_said(row) == (room_id, cause.value, since, until, count) for row in self.missed.rows.values()):
            # A page that came again after a kill says it again.
            return
        number = 1 + max((int(key[1]) for key in self.missed.rows if key[0] == room_id), default=-1)
        self.missed.put(MissedEvents(room_id, number, cause.value, since, until, count, now()))
        _log.warning("events of %s reached no callback: %s", ascii(room_id), cause.value)
        facts = {"room_id": room_id, "cause": cause.value, "count": count}
        notify("cryptostore_events_missed", account=self._account, **facts)
        self.on_change()


def _said(row: MissedEvents) -> tuple[str, str, str, str, int]:
    return row.room_id, row.cause, row.since, row.until, row.count


def page_size(gap: TimelineGap) -> int:
    """How many events to ask for at once."""
    return gap.page_size or PAGE


def _new_gap(room_id: str, since: str, until: str, timeline_filter: Any, oldest: int) -> TimelineGap:
    start, end = stored_token(since), stored_token(until)
    shown = _shown(timeline_filter)
    return TimelineGap(room_id, since=start, until=end, latest=end, cursor=start, filter=shown, oldest=oldest)


def _shown(timeline_filter: Any) -> str:
    return json.dumps(timeline_filter, sort_keys=True) if timeline_filter else ""


def _newest(events: list[Any]) -> bytes:
    return digest(events[-1]) if events else b""


def _split(passed: bytes) -> list[bytes]:
    return [passed[start : start + _DIGEST] for start in range(0, len(passed), _DIGEST)]
