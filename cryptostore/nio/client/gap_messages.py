"""What a homeserver left out of a timeline, asked for page by page."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from aiohttp import ClientError
from nio import Event, RoomMemberEvent

from cryptostore.nio.standins import token_that_came
from cryptostore.records import TimelineGap

from .answers import PASSING_STATUSES, is_homeservers
from .memberships import own_memberships

#: As many as Synapse gives. Smaller pages lose events where a room's history has branches.
PAGE: Final = 1_000
#: Pages with members and nothing else, at most.
_MEMBER_PAGES: Final = 10
#: Milliseconds; a server may say any number.
_LONGEST_WORD: Final = 3_600_000
_API: Final = "/_matrix/client/v3"


class Answer(NamedTuple):
    """What a homeserver answered: the HTTP status, and the body if it is JSON."""

    status: int
    body: Any


class Page(NamedTuple):
    """Events in their order, and where the next page begins; None after the last one."""

    events: list[Any]
    end: str | None
    #: Events of other rooms, which were left out.
    foreign: int = 0


class RefusedError(Exception):
    """The homeserver does not give these events."""


class NotNowError(Exception):
    """The homeserver may give these events another time: after `pause` seconds, if it said so."""

    def __init__(self, why: str, pause: float | None = None) -> None:
        super().__init__(why)
        self.pause = pause


class Messages:
    """Asks for the events of rooms. `ask` sends a GET request for a path, and may raise what aiohttp raises.

    Every method raises RefusedError and NotNowError.
    """

    def __init__(self, ask: Callable[[str], Awaitable[Answer]], user_id: str) -> None:
        self._ask = ask
        self._user_id = user_id
        self._filters: dict[str, Any] = {}

    async def page(self, gap: TimelineGap, limit: int) -> Page:
        """The next page of a gap, from its cursor on, the oldest first."""
        return await self._messages(gap, "f", gap.cursor, gap.until, limit)

    async def newest(self, gap: TimelineGap, count: int) -> tuple[Page, bool]:
        """The newest events of a gap, the oldest of them first, and whether there are no others."""
        events: list[Any] = []
        start, foreign, ends = gap.until, 0, set[str]()
        while len(events) <= count and start not in ends:
            ends.add(start)
            page = await self._messages(gap, "b", start, gap.since, min(PAGE, count + 1 - len(events)))
            events += page.events
            foreign += page.foreign
            if page.end is None:
                break
            start = page.end
        return Page(events[:count][::-1], None, foreign), len(events) <= count

    async def before(self, gap: TimelineGap) -> Page:
        """The last events before a gap."""
        return await self._messages(gap, "b", gap.since, None, PAGE)

    async def last(self, gap: TimelineGap, count: int) -> Page:
        """The last events of a gap."""
        return await self._messages(gap, "b", gap.until, gap.since, count)

    async def memberships(self, gap: TimelineGap) -> list[RoomMemberEvent]:
        """The user's own joins and leaves in a gap."""
        cursor: str | None = gap.since
        for _ in range(_MEMBER_PAGES):
            page = await self._messages(gap, "f", cursor or "", gap.until, PAGE, {"types": ["m.room.member"]})
            if own := own_memberships(page.events, self._user_id):
                return own
            if page.end is None:
                break
            cursor = page.end
        return []

    async def _messages(
        self, gap: TimelineGap, direction: str, start: str, end: str | None, limit: int, only: Any = None
    ) -> Page:
        wanted = only or await self._filter(gap)
        query = {"dir": direction, "from": token_that_came(start), "limit": limit}
        if end is not None:
            query["to"] = token_that_came(end)
        if wanted:
            query["filter"] = json.dumps(wanted, separators=(",", ":"))
        body = await self._answer(f"{_API}/rooms/{quote(gap.room_id, safe='')}/messages?{urlencode(query)}")
        return _page(body, gap.room_id)

    async def _filter(self, gap: TimelineGap) -> Any:
        """What a sync's filter says of timelines."""
        if not gap.filter:
            return {}
        if gap.filter not in self._filters:
            given = json.loads(gap.filter)
            if isinstance(given, str):
                user = quote(self._user_id, safe="")
                given = timeline_filter(await self._answer(f"{_API}/user/{user}/filter/{quote(given, safe='')}"))
            self._filters[gap.filter] = given
        return self._filters[gap.filter]

    async def _answer(self, path: str) -> Any:
        try:
            status, body = await self._ask(path)
        except (ClientError, OSError) as error:
            raise NotNowError(type(error).__name__) from error
        said = body if isinstance(body, dict) else {}
        if status == 200 and said:
            return said
        errcode = said.get("errcode")
        is_refusal = 400 <= status < 500 and status not in PASSING_STATUSES
        if is_refusal and isinstance(errcode, str) and is_homeservers(errcode):
            raise RefusedError(f"{status} {errcode}")
        raise NotNowError(f"HTTP status {status}", _seconds(said.get("retry_after_ms")))


def timeline_filter(sync_filter: Any) -> Any:
    """The part of a sync's filter that says which events of a room come: a filter of its own, without its limit."""
    room = sync_filter.get("room") if isinstance(sync_filter, dict) else None
    timeline = room.get("timeline") if isinstance(room, dict) else None
    return {name: value for name, value in timeline.items() if name != "limit"} if isinstance(timeline, dict) else {}


def _seconds(milliseconds: Any) -> float | None:
    if type(milliseconds) is not int or milliseconds <= 0:
        return None
    return min(milliseconds, _LONGEST_WORD) / 1000


def _parsed(events: list[Any]) -> list[Any]:
    return [event for each in events if (event := Event.parse_event(each))]


def _page(body: Any, room_id: str) -> Page:
    chunk, end = body.get("chunk"), body.get("end")
    if not isinstance(chunk, list) or not isinstance(end, str | None):
        raise NotNowError("a page that is none")
    known = [each for each in chunk if isinstance(each, dict)]
    ours = [each for each in known if each.get("room_id", room_id) == room_id]
    # Without `room_id` an event looks as a sync brings it.
    return Page(_parsed(ours), end, len(known) - len(ours))
