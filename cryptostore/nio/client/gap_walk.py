"""The walk through one room's gap: page by page, the oldest first, each event once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from cryptostore.logs import logger
from cryptostore.records import TimelineGap

from .gap_messages import Messages, Page, RefusedError
from .gap_records import Gaps, MissedCause, digest, page_size
from .memberships import JOIN, UNKNOWN, after, at_the_start, before, is_outside

#: Events that are handed on together: their place becomes durable with their keys.
SLICE: Final = 100
#: The last events of a gap, which a walk of several pages may have passed over.
_CHECKED: Final = 10
#: Pages of one gap, at most: a million events.
MOST_PAGES: Final = 1_000

#: Hands a slice of a room's events on, and calls what it was given after each of them.
HandOn = Callable[[str, list[Any], Callable[[Any], bool], Callable[[Any], None]], Awaitable[None]]
#: Runs a step that changes records, while nothing else does.
Alone = Callable[[Callable[[], None]], Awaitable[None]]

_log: Final = logger(__name__)


class GapWalk:
    """Walks through the gap of `room_id`, whose records are in `gaps`.

    `hand_on` and `alone` are the client's. `limit` is the number of newest events that are handed on, or None for all.
    """

    def __init__(
        self, gaps: Gaps, messages: Messages, hand_on: HandOn, alone: Alone, user_id: str, limit: int | None
    ) -> None:
        self._gaps = gaps
        self._messages = messages
        self._hand_on = hand_on
        self._alone = alone
        self._user_id = user_id
        self._limit = limit
        #: The places where pages of this walk began.
        self._cursors: set[str] = set()
        #: What came before the gap: pages after the first one may bring it again.
        self._before: set[bytes] | None = None

    async def step(self, room_id: str) -> bool:
        """Hand one page on. Returns whether the room has no gap any more.

        Raises NotNowError, with the place where it was, and what callbacks raise.
        """
        gap = self._gaps.open.rows[room_id,]
        try:
            page, is_whole = await self._page(gap)
            events = await self._new_events(gap, page)
            membership = await self._membership(gap, page)
        except RefusedError as error:
            _log.warning("the homeserver does not give what it left out of %s: %s", ascii(room_id), error)
            await self._alone(lambda: self._gaps.give_up(room_id, MissedCause.REFUSED, whole=True))
            return self._ends_leg(room_id)
        if membership != gap.membership:
            await self._alone(lambda: self._gaps.move(room_id, [], membership=membership))
        if page.foreign:
            await self._alone(lambda: self._gaps.miss(room_id, MissedCause.FOREIGN, page.foreign))
        is_wanted, passed = partial(self._is_wanted, room_id), partial(self._passed, room_id)
        for start in range(0, len(events), SLICE):
            await self._hand_on(room_id, events[start : start + SLICE], is_wanted, passed)
        if not is_whole:
            await self._alone(lambda: self._gaps.miss(room_id, MissedCause.LIMIT))
        return await self._go_on(room_id, page)

    async def _page(self, gap: TimelineGap) -> tuple[Page, bool]:
        if self._limit is not None:
            return await self._messages.newest(gap, self._limit)
        self._cursors.add(gap.cursor)
        return await self._messages.page(gap, page_size(gap)), True

    async def _new_events(self, gap: TimelineGap, page: Page) -> list[Any]:
        passed = self._gaps.passed(gap.room_id)
        if gap.parts and page.events and self._before is None:
            self._before = set(map(digest, (await self._messages.before(gap)).events))
        known = passed | (self._before or set())
        new: dict[bytes, Any] = {}
        for event in page.events:
            if (name := digest(event)) not in known:
                new.setdefault(name, event)
        return list(new.values())

    async def _membership(self, gap: TimelineGap, page: Page) -> str:
        """The account's membership where this page begins, or where it was left."""
        if gap.membership != UNKNOWN:
            return gap.membership
        found = at_the_start(page.events, self._user_id)
        if found != UNKNOWN:
            return found
        own = await self._messages.memberships(gap)
        if not own:
            return JOIN
        # The newest events come after it, a first page before.
        return before(own[0]) if self._limit is None else after(own[-1], self._user_id, JOIN)

    def _is_wanted(self, room_id: str, event: Any) -> bool:
        gap = self._gaps.open.rows[room_id,]
        if is_outside(gap.membership, after(event, self._user_id, gap.membership)):
            return False
        if gap.oldest and _timestamp(event) < gap.oldest:
            self._gaps.open.put(replace(gap, skipped=gap.skipped + 1))
            return False
        self._gaps.drop_skipped(room_id)
        return True

    def _passed(self, room_id: str, event: Any) -> None:
        gap = self._gaps.open.rows[room_id,]
        membership = after(event, self._user_id, gap.membership)
        self._gaps.move(room_id, [digest(event)], membership=membership)

    async def _go_on(self, room_id: str, page: Page) -> bool:
        if page.end is None:
            await self._end(room_id)
            return self._ends_leg(room_id)
        if page.end in self._cursors or len(self._cursors) >= MOST_PAGES:
            await self._alone(lambda: self._gaps.give_up(room_id, MissedCause.ENDLESS, whole=False))
            return self._ends_leg(room_id)
        end = page.end
        await self._alone(lambda: self._gaps.turn_page(room_id, end))
        return False

    async def _end(self, room_id: str) -> None:
        gap = self._gaps.open.rows[room_id,]
        if await self._lacks_some(gap):
            self._cursors.clear()
            await self._alone(lambda: self._walk_again(room_id))
        else:
            await self._alone(lambda: self._gaps.close(room_id))

    async def _lacks_some(self, gap: TimelineGap) -> bool:
        """Whether events are known to be there that did not come."""
        passed = self._gaps.passed(gap.room_id)
        if gap.newest_until and gap.newest_until not in passed:
            return True
        if self._limit is not None or not self._gaps.may_have_lost_some(gap.room_id):
            return False
        try:
            last = await self._messages.last(gap, _CHECKED)
        except RefusedError:
            return False
        return not passed.issuperset(map(digest, last.events))

    def _walk_again(self, room_id: str) -> None:
        if self._limit is not None or not self._gaps.walk_again(room_id):
            self._gaps.give_up(room_id, MissedCause.INCOMPLETE, whole=False)

    def _ends_leg(self, room_id: str) -> bool:
        """A walk is over; what came since is another one."""
        self._cursors.clear()
        self._before = None
        return self._gaps.gap(room_id) is None


def _timestamp(event: Any) -> int:
    source = getattr(event, "source", None) or {}
    claimed = source.get("origin_server_ts")
    return claimed if isinstance(claimed, int) else 0
