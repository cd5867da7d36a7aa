"""How much of what was left out is fetched, and what becomes of the rest."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web
from nio import SyncResponse

from client_gaps import causes, fault, is_at_rest, numbered, pages, refuse, write
from client_pairs import BOB, ROOM, Person, people
from cryptostore import ConfigurationError, MissedEvents, TimelineGap
from small_homeserver import Request, small_homeserver
from spoiling import spoil


def test_only_the_newest_are_fetched_if_there_is_a_limit(url: str) -> None:
    async def scenario() -> None:
        async with people(url, gap_limit=20) as (server, _alice, bob):
            write(server, numbered(50))
            await bob.client.sync()
            assert bob.read == numbered(20, 30)
            assert causes(bob) == ["limit"]
            write(server, numbered(20, 50))
            await bob.client.sync()
            assert bob.read == numbered(40, 30)
            assert causes(bob) == ["limit"]

    asyncio.run(scenario())


def test_what_is_too_old_is_counted_and_left_out(url: str) -> None:
    async def scenario() -> None:
        async with people(url, gap_age=3600.0) as (server, _alice, bob):
            write(server, numbered(50))
            for _, event in server.timeline[ROOM][:-30]:
                event["origin_server_ts"] = 1
            await bob.client.sync()
            assert bob.read == numbered(30, 20)
            (missed,) = bob.stored(MissedEvents)
            assert (missed.cause, missed.count) == ("age", 20)

    asyncio.run(scenario())


def test_the_filter_of_the_sync_goes_with_the_pages(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            write(server, numbered(30))
            sync_filter = {"room": {"timeline": {"types": ["m.room.message"], "limit": 5}}}
            response = await bob.client.sync(sync_filter=sync_filter)
            assert isinstance(response, SyncResponse)
            assert bob.read == numbered(30)
            assert {request.filter for request in pages(server)} == {'{"types":["m.room.message"]}'}

    asyncio.run(scenario())


def test_a_stored_filter_goes_with_the_pages_too(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            timeline = {"types": ["m.room.message"], "limit": 5}

            def stored(request: Request) -> web.StreamResponse | None:
                if request.is_for("/filter/"):
                    assert request.path.endswith("/user/@bob:small/filter/7")
                    return web.json_response({"room": {"timeline": timeline}})
                return None

            server.faults.append(stored)
            write(server, numbered(30))
            # The small homeserver knows no stored filters; it takes this one for none.
            await bob.client.sync(sync_filter="7")
            assert bob.read == numbered(30)
            assert {request.filter for request in pages(server)} == {'{"types":["m.room.message"]}'}

    asyncio.run(scenario())


def test_syncs_with_other_filters_raise_no_alarm(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            fault(server, refuse(502, "M_UNKNOWN"))
            only_names = {"room": {"timeline": {"types": ["m.room.name"]}}}
            write(server, numbered(30))
            await bob.client.sync()
            write(server, numbered(3, 30))
            await bob.client.sync(sync_filter=only_names)
            server.faults.clear()
            await bob.client.sync()
            assert bob.read == numbered(33)
            assert causes(bob) == []

    asyncio.run(scenario())


@pytest.mark.parametrize("settings", [{"gap_limit": 0}, {"gap_age": 0.0}, {"gap_age": -1.0}])
def test_settings_that_fetch_nothing_are_refused(memory_url: str, settings: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            with pytest.raises(ConfigurationError, match=next(iter(settings))):
                Person(server, BOB, memory_url, **settings)

    asyncio.run(scenario())


def test_a_damaged_record_of_a_gap_is_reported_and_the_room_goes_on(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, _alice, bob):
            fault(server, refuse(502, "M_UNKNOWN"))
            write(server, numbered(30))
            await bob.client.sync()
            await bob.client.close()
            spoil(url, BOB, TimelineGap)
            server.faults.clear()
            await bob.restart()
            write(server, ["new"])
            await bob.client.sync()
            assert bob.read == ["new"]
            assert causes(bob) == ["unreadable"]
            assert is_at_rest(bob)
            # So is a report that cannot be read.
            await bob.client.close()
            spoil(url, BOB, MissedEvents)
            await bob.restart()
            await bob.client.sync()
            assert causes(bob) == ["unreadable"]

    asyncio.run(scenario())
