"""Homeservers that refuse what they left out, or answer with pages that are not as they should be."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web
from nio import MatrixRoom, RoomMessageText

from client_gaps import answering, causes, fault, is_at_rest, numbered, pages, refuse, write
from client_pairs import ALICE, ROOM, people
from cryptostore import MissedEvents
from small_homeserver import PAGES, Json, Request, page


class Stumble(Exception):
    """What a callback raises."""


@pytest.mark.parametrize(("status", "errcode"), [(400, "M_UNKNOWN"), (403, "M_FORBIDDEN"), (404, "M_NOT_FOUND")])
def test_what_the_server_refuses_is_kept_until_a_callback_took_it(url: str, status: int, errcode: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, _alice, bob):
            since = bob.client.next_batch
            fault(server, refuse(status, errcode))
            write(server, numbered(30))
            await bob.client.sync()
            (missed,) = bob.stored(MissedEvents)
            assert (missed.room_id, missed.cause, missed.since) == (ROOM, "refused", since)
            assert missed.until == bob.client.next_batch
            write(server, ["new"])
            await bob.restart()
            assert bob.client.missed_events == [missed]
            told: list[MissedEvents] = []

            def stumble(event: MissedEvents) -> None:
                told.append(event)
                if len(told) == 1:
                    raise Stumble

            bob.client.add_missed_events_callback(stumble)
            with pytest.raises(Stumble):
                await bob.client.sync()
            assert bob.read == ["new"]
            assert bob.stored(MissedEvents) == [missed]
            await bob.client.sync()
            assert told == [missed, missed]
            assert bob.stored(MissedEvents) == bob.client.missed_events == []

    asyncio.run(scenario())


def test_a_page_that_comes_again_and_again_ends(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            write(server, numbered(30))
            first: list[Json] = []

            def same(page: Json, _request: Request) -> Json:
                first.append(page | {"end": "t5"})
                return first[0]

            answering(same, server)
            await bob.client.sync()
            assert bob.read == numbered(30)
            assert causes(bob) == ["endless"]

    asyncio.run(scenario())


def test_pages_without_an_end_to_them_end(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cryptostore.nio.client.gap_walk.MOST_PAGES", 20)

    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            write(server, numbered(30))
            count = iter(range(10**6))
            answering(lambda page, _: page | {"end": f"t{10**6 + next(count)}"}, server)
            await bob.client.sync()
            assert bob.read == numbered(30)
            assert causes(bob) == ["endless"]

    asyncio.run(scenario())


def test_empty_pages_with_an_end_are_not_the_end(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            write(server, numbered(30))
            asked: list[str] = []

            def empty_first(page: Json, request: Request) -> Json:
                asked.append(request.query["from"])
                start = asked[0]
                return {"chunk": [], "start": start, "end": f"t{start}"} if len(asked) == 1 else page

            answering(empty_first, server)
            await bob.client.sync()
            assert bob.read == numbered(30)
            assert causes(bob) == []

    asyncio.run(scenario())


def test_an_event_in_two_pages_is_handed_on_once(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            write(server, numbered(30))

            def twice(page: Json, request: Request) -> Json:
                small = server._messages(ROOM, {**request.query, "limit": "8"})
                if request.query["dir"] == "f" and "end" in small:
                    small["chunk"] = [*small["chunk"], small["chunk"][0]]
                    at = int(small["end"].removeprefix("t"))
                    small["end"] = f"t{at - 2}" if len(small["chunk"]) > 3 else small["end"]
                return small

            answering(twice, server)
            await bob.client.sync()
            assert bob.read == numbered(30)
            assert is_at_rest(bob)

    asyncio.run(scenario())


def test_events_of_another_room_are_left_out_and_reported(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            write(server, numbered(30))
            foreign = {
                "type": "m.room.message",
                "sender": ALICE.user_id,
                "event_id": "$foreign",
                "origin_server_ts": 1,
                "room_id": "!elsewhere:small",
                "content": {"msgtype": "m.text", "body": "foreign"},
            }
            answering(lambda page, _: page | {"chunk": [*page["chunk"], foreign] if page["chunk"] else []}, server)
            await bob.client.sync()
            assert bob.read == numbered(30)
            assert causes(bob) == ["foreign"]
            assert bob.stored(MissedEvents)[0].count == 1

    asyncio.run(scenario())


def test_a_place_that_the_server_does_not_know_any_more_is_reported(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            write(server, numbered(30))
            # A restored server: all that it says of a token from the future is nothing.
            answering(lambda _page, request: {"chunk": [], "start": request.query["from"]}, server)
            await bob.client.sync()
            assert causes(bob) == ["incomplete"]

    asyncio.run(scenario())


def test_events_that_a_walk_passed_over_are_found_by_another(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            write(server, numbered(30))

            def pass_over(page: Json, request: Request) -> Json:
                # As on a branch whose last-arrived event ends a page: the rest looks as if it was not there.
                if request.query["dir"] == "b" or request.query["limit"] != "1000":
                    return page
                small = server._messages(ROOM, {**request.query, "limit": "8"})
                return small if request.query["from"][0] != "t" else {"chunk": [], "start": "t"}

            answering(pass_over, server)
            await bob.client.sync()
            assert bob.read == numbered(30)
            assert is_at_rest(bob)

    asyncio.run(scenario())


@pytest.mark.parametrize("status", PAGES)
def test_a_proxys_page_is_no_refusal(memory_url: str, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setattr("cryptostore.nio.client.gap_filling._FIRST_PAUSE", 0.01)

    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            fault(server, lambda _request: page(status))
            write(server, numbered(30))
            await bob.client.sync()
            assert causes(bob) == []
            server.faults.clear()
            await asyncio.sleep(0.02)
            await bob.client.sync()
            assert bob.read == numbered(30)

    asyncio.run(scenario())


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_server_that_is_busy_is_asked_again(memory_url: str, status: int) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            left = [None, None]

            def busy(_request: Request) -> web.StreamResponse | None:
                if not left:
                    return None
                left.pop()
                body = {"errcode": "M_LIMIT_EXCEEDED", "error": "later", "retry_after_ms": 1}
                return web.json_response(body, status=status)

            fault(server, busy)
            write(server, numbered(30))

            async def stop(_room: MatrixRoom, event: Any) -> None:
                if event.body == numbered(30)[-1]:
                    bob.client.stop_sync_forever()  # type: ignore[no-untyped-call]  # nio has no annotation

            bob.client.add_event_callback(stop, RoomMessageText)
            await bob.client.sync_forever(timeout=50)
            assert bob.read == numbered(30)
            assert causes(bob) == []

    asyncio.run(scenario())


def test_what_a_branch_brings_again_from_before_the_gap_is_not_handed_on_again(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            write(server, numbered(5))
            await bob.client.sync()
            old = [event for _, event in server.timeline[ROOM][-5:]]
            write(server, numbered(1_050, 5))

            def branch(page: Json, request: Request) -> Json:
                # The pages after the first one are bounded by depth, not by arrival.
                is_later = request.query["dir"] == "f" and request.query["from"][0] == "t" and page["chunk"]
                return page | {"chunk": [*old, *page["chunk"]]} if is_later else page

            answering(branch, server)
            await bob.client.sync()
            assert bob.read == numbered(1_055)
            assert is_at_rest(bob)
            assert causes(bob) == []

    asyncio.run(scenario())


def test_the_last_events_of_several_pages_are_looked_for(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            write(server, numbered(1_050))
            hidden = server.timeline[ROOM][-4][1]["event_id"]

            def hide(page: Json, request: Request) -> Json:
                # Where a page of a thousand ends, one event of another branch is passed over.
                if request.query["dir"] == "b" or request.query["limit"] != "1000":
                    return page
                return page | {"chunk": [each for each in page["chunk"] if each["event_id"] != hidden]}

            answering(hide, server)
            await bob.client.sync()
            assert sorted(bob.read) == sorted(numbered(1_050))
            assert len(pages(server)) > 4
            assert is_at_rest(bob)

    asyncio.run(scenario())
