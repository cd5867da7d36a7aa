"""The parts of gap filling that need no client: when somebody was in a room, and pages that are none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from nio import Event

from cryptostore import TimelineGap
from cryptostore.nio.client.gap_messages import Answer, Messages, NotNowError, RefusedError
from cryptostore.nio.client.memberships import while_inside

ME = "@me:example.org"
GAP = TimelineGap("!room:example.org", "s1", "s9", "s9", "s1")


def member(membership: str, was: str | None = None, user: str = ME) -> Any:
    """An event about somebody's membership."""
    unsigned = {} if was is None else {"prev_content": {"membership": was}}
    return Event.parse_event(
        {
            "type": "m.room.member",
            "state_key": user,
            "sender": user,
            "event_id": f"${membership}",
            "origin_server_ts": 1,
            "content": {"membership": membership},
            "unsigned": unsigned,
        }
    )


@pytest.mark.parametrize(
    ("events", "inside"),
    [
        ([], []),
        (["a", "b"], [0, 1]),
        (["a", member("join"), "b"], [1, 2]),
        (["a", member("join", "invite"), "b"], [1, 2]),
        (["a", member("join", "join"), "b"], [0, 1, 2]),
        (["a", member("leave", "join"), "b", member("join", "leave"), "c"], [0, 1, 3, 4]),
        (["a", member("leave"), "b"], [0, 1]),
        (["a", member("ban", "join"), "b"], [0, 1]),
        (["a", member("invite", "leave"), "b", member("join", "invite"), "c"], [3, 4]),
        (["a", member("leave", "join", "@other:example.org"), "b"], [0, 1, 2]),
    ],
)
def test_what_lies_inside(events: list[Any], inside: list[int]) -> None:
    assert while_inside(events, ME) == inside


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, {}, NotNowError),
        (200, {"chunk": "none"}, NotNowError),
        (200, {"chunk": [], "end": 7}, NotNowError),
        (200, ["no", "dictionary"], NotNowError),
        (401, {"errcode": "M_UNKNOWN_TOKEN"}, NotNowError),
        (404, {"error": "a proxy's page"}, NotNowError),
        (502, {"errcode": "M_NOT_JSON"}, NotNowError),
        (404, {"errcode": "M_NOT_JSON"}, NotNowError),
        (404, {"errcode": "M_UNRECOGNIZED"}, RefusedError),
        (403, {"errcode": "M_FORBIDDEN"}, RefusedError),
    ],
)
def test_answers_that_bring_no_page(status: int, body: Any, error: type[Exception]) -> None:
    async def ask(_path: str) -> Answer:
        return Answer(status, body)

    with pytest.raises(error):
        asyncio.run(Messages(ask, ME).page(GAP, 10))


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionResetError()])
def test_a_network_that_fails_may_work_another_time(error: Exception) -> None:
    async def ask(_path: str) -> Answer:
        raise error

    with pytest.raises(NotNowError):
        asyncio.run(Messages(ask, ME).page(GAP, 10))


@pytest.mark.parametrize(("said", "pause"), [(1500, 1.5), ("soon", None), (True, None), (-5, None), (10**400, 3600.0)])
def test_a_server_says_when_to_ask_again(said: Any, pause: float | None) -> None:
    async def ask(_path: str) -> Answer:
        return Answer(429, {"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": said})

    with pytest.raises(NotNowError) as caught:
        asyncio.run(Messages(ask, ME).page(GAP, 10))
    assert caught.value.pause == pause


def test_what_is_no_event_is_left_out_or_marked() -> None:
    async def ask(_path: str) -> Answer:
        return Answer(200, {"chunk": [None, 7, [], {}, {"type": 7}, {"event_id": 8}]})

    page = asyncio.run(Messages(ask, ME).page(GAP, 10))
    assert [type(event).__name__ for event in page.events] == ["UnknownBadEvent"] * 3
    assert page.end is None
