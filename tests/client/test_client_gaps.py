"""What a homeserver leaves out of a timeline reaches the callbacks all the same: in order, each event once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from nio import AsyncClient, MatrixRoom, RoomMessageText, SyncResponse

from client_pairs import ALICE, BOB, ROOM, Person, people, say_in_new_sessions
from cryptostore import ConfigurationError, GapPart, MissedEvents, StoreClosed, SyncToken, TimelineGap
from small_homeserver import Json, Request, SmallHomeserver, small_homeserver
from spoiling import spoil

DEVICE = (ALICE.user_id, ALICE.device_id)


class Stumble(Exception):
    """What a callback raises."""


def write(server: SmallHomeserver, texts: list[str], room: str = ROOM) -> None:
    """Plain messages of Alice's."""
    for text in texts:
        content = {"msgtype": "m.text", "body": text}
        server._say(DEVICE, room, "m.room.message", f"transaction of {text} in {room}", content)


def numbered(count: int, first: int = 0) -> list[str]:
    """Texts that tell their order."""
    return [f"message {number}" for number in range(first, first + count)]


def pages(server: SmallHomeserver, user: str = BOB.user_id) -> list[Request]:
    """The requests for messages."""
    return [request for request in server.requests if request.path.endswith("/messages") and request.user == user]


def fault(
    server: SmallHomeserver, answer: Callable[[Request], web.StreamResponse | None], room: str = ROOM
) -> Callable[[Request], web.StreamResponse | None]:
    """Let requests for a room's messages go wrong."""

    def look(request: Request) -> web.StreamResponse | None:
        return answer(request) if request.is_for(f"/rooms/{room}/messages") else None

    server.faults.append(look)
    return look


def refuse(status: int, errcode: str) -> Callable[[Request], web.StreamResponse]:
    """An answer that says no."""
    return lambda _request: web.json_response({"errcode": errcode, "error": "no"}, status=status)


def is_at_rest(person: Person) -> bool:
    """Whether no gap is open."""
    return not person.stored(TimelineGap) and not person.stored(GapPart)


def test_what_a_downtime_left_out_is_read_in_order_and_once(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (_, alice, bob):
            await alice.say("the first")
            await bob.client.sync()
            await bob.client.close()
            texts = numbered(168)
            say_in_new_sessions(alice, texts)
            await bob.restart()
            await bob.client.sync()
            assert bob.read == ["the first", *texts]
            assert is_at_rest(bob)
            await bob.client.sync()
            assert bob.read == ["the first", *texts]
            assert bob.client.statistics.loop_reads == 0
            assert bob.client.statistics.gaps == 1

    asyncio.run(scenario())


def test_a_gap_in_a_running_process_costs_two_requests(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            write(server, numbered(68))
            await bob.client.sync()
            assert bob.read == numbered(68)
            assert len(pages(server)) == bob.client.statistics.gap_requests == 2

    asyncio.run(scenario())


def test_the_record_is_in_the_batch_of_the_token(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, _alice, bob):
            seen: list[Any] = []

            def look(request: Request) -> web.StreamResponse | None:
                seen.append((bob.stored(SyncToken), bob.stored(TimelineGap)))
                return None

            fault(server, look)
            since = bob.client.next_batch
            write(server, numbered(30))
            await bob.client.sync()
            (token,), (gap,) = seen[0]
            assert (gap.since, gap.cursor, gap.until, gap.latest) == (since, since, token.token, token.token)

    asyncio.run(scenario())


def test_newer_events_wait_for_the_older_ones_and_other_rooms_do_not(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, _alice, bob):
            server.make_room("!other:small", ALICE.user_id, BOB.user_id)
            await bob.client.sync()
            fault(server, refuse(502, "M_UNKNOWN"))
            write(server, numbered(30))
            await bob.client.sync()
            assert bob.read == []
            write(server, numbered(3, 30))
            write(server, ["elsewhere"], "!other:small")
            await bob.client.sync()
            assert bob.read == ["elsewhere"]
            (gap,) = bob.stored(TimelineGap)
            assert gap.latest != gap.until
            server.faults.clear()
            await bob.restart()
            await bob.client.sync()
            assert bob.read == ["elsewhere", *numbered(33)]
            assert is_at_rest(bob)

    asyncio.run(scenario())


@pytest.mark.parametrize("stumbles_at", [0, 57, 99, 100, 149])
def test_a_callback_that_raises_gets_that_event_again_and_no_other(url: str, stumbles_at: int) -> None:
    async def scenario() -> None:
        async with people(url) as (server, _alice, bob):
            texts = numbered(150)
            read: list[str] = []

            async def stumble(_room: MatrixRoom, event: Any) -> None:
                read.append(event.body)
                if event.body == texts[stumbles_at] and read.count(event.body) == 1:
                    raise Stumble

            bob.client.add_event_callback(stumble, RoomMessageText)
            write(server, texts)
            with pytest.raises(Stumble):
                await bob.client.sync()
            await bob.client.sync()
            assert read == texts[: stumbles_at + 1] + texts[stumbles_at:]
            assert is_at_rest(bob)

    asyncio.run(scenario())


def test_a_process_that_dies_repeats_only_the_slice_in_hand(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, _alice, bob):
            texts = numbered(250)

            async def hang(_room: MatrixRoom, event: Any) -> None:
                if event.body == texts[130]:
                    reached.set()
                    await asyncio.Event().wait()

            reached = asyncio.Event()
            bob.client.add_event_callback(hang, RoomMessageText)
            write(server, texts)
            sync = asyncio.create_task(bob.client.sync())
            await reached.wait()
            assert bob.read == texts[:131]
            await bob.come_back_after_a_crash()
            await bob.client.sync()
            sync.cancel()
            await asyncio.gather(sync, return_exceptions=True)
            assert bob.read == texts[:131] + texts[100:]
            assert is_at_rest(bob)

    asyncio.run(scenario())


def test_the_first_sync_of_an_account_fills_nothing(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            write(server, numbered(68))
            await bob.client.close()
            newcomer = Person(server, type(BOB)(BOB.user_id, "NEWPHONE"), memory_url)
            try:
                await newcomer.start()
                await newcomer.client.sync()
                assert newcomer.read == numbered(10, 58)
                assert newcomer.client.statistics.gap_requests == 0
            finally:
                await newcomer.client.close()

    asyncio.run(scenario())


def test_sync_forever_fills_beside_the_syncs(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, _alice, bob):
            server.make_room("!other:small", ALICE.user_id, BOB.user_id)
            await bob.client.sync()
            go_on = asyncio.Event()
            others = asyncio.Event()

            async def wait(_room: MatrixRoom, event: Any) -> None:
                if event.body == "elsewhere":
                    others.set()
                if event.body == numbered(30)[-1]:
                    bob.client.stop_sync_forever()  # type: ignore[no-untyped-call]  # nio has no annotation

            real = AsyncClient.send

            async def slow(self: AsyncClient, method: str, path: str, *args: Any, **given: Any) -> Any:
                if "/messages?" in path:
                    await go_on.wait()
                return await real(self, method, path, *args, **given)

            bob.client.add_event_callback(wait, RoomMessageText)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(AsyncClient, "send", slow)
                write(server, numbered(30))
                forever = asyncio.create_task(bob.client.sync_forever(timeout=50))
                while not bob.client.statistics.gap_requests:  # noqa: ASYNC110  # a count, not an event
                    await asyncio.sleep(0.01)
                write(server, ["elsewhere"], "!other:small")
                await others.wait()
                assert bob.read == ["elsewhere"]
                go_on.set()
                await forever
            assert bob.read == ["elsewhere", *numbered(30)]

    asyncio.run(scenario())


def test_a_rejoined_room_brings_what_was_said_while_inside(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, _alice, bob):
            write(server, ["handled 1", "handled 2"])
            await bob.client.sync()
            write(server, ["before I left"])
            server.join(ROOM, BOB.user_id, "leave")
            write(server, ["while I was away"])
            server.join(ROOM, BOB.user_id)
            write(server, ["after"])
            await bob.client.sync()
            assert bob.read == ["handled 1", "handled 2", "before I left", "after"]
            assert is_at_rest(bob)

    asyncio.run(scenario())


def test_a_room_joined_by_another_device_begins_at_the_own_join(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            room = "!new:small"
            server.make_room(room, ALICE.user_id)
            write(server, numbered(30), room)
            server.join(room, BOB.user_id)
            write(server, numbered(20, 30), room)
            await bob.client.sync()
            assert bob.read == numbered(20, 30)

    asyncio.run(scenario())


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


def answering(change: Callable[[Json, Request], Json], server: SmallHomeserver) -> None:
    """Let the server's pages be what `change` makes of them."""
    fault(server, lambda request: web.json_response(change(server._messages(ROOM, request.query), request)))


def causes(person: Person) -> list[str]:
    """Why events were missed."""
    return [row.cause for row in person.stored(MissedEvents)]


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
            for _, event in server.timeline[ROOM][-30:]:
                event["origin_server_ts"] = 2**45
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


def test_a_callback_that_closes_the_client_gets_its_event_again(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, _alice, bob):

            async def close(_room: MatrixRoom, event: Any) -> None:
                if event.body == numbered(30)[7] and len(bob.read) == 8:
                    await bob.client.close()

            bob.client.add_event_callback(close, RoomMessageText)
            write(server, numbered(30))
            with pytest.raises(StoreClosed):
                await bob.client.sync()
            await bob.restart()
            await bob.client.sync()
            assert bob.read == numbered(8) + numbered(23, 7)

    asyncio.run(scenario())


def test_a_cancelled_sync_goes_on_where_it_was(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            reached = asyncio.Event()

            async def hang(_room: MatrixRoom, event: Any) -> None:
                if event.body == numbered(30)[7] and not reached.is_set():
                    reached.set()
                    await asyncio.Event().wait()

            bob.client.add_event_callback(hang, RoomMessageText)
            write(server, numbered(30))
            sync = asyncio.create_task(bob.client.sync())
            await reached.wait()
            sync.cancel()
            await asyncio.gather(sync, return_exceptions=True)
            await bob.client.sync()
            assert bob.read == numbered(8) + numbered(23, 7)

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


@pytest.mark.parametrize("messages", [1, 30])
def test_who_was_removed_meanwhile_gets_no_key_from_an_answer(memory_url: str, messages: int) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            carol = Person(server, type(BOB)("@carol:small", "CAROLPHONE"), memory_url)
            try:
                server.join(ROOM, "@carol:small")
                await carol.start()
                for person in (carol, alice, bob, bob):
                    await person.round()

                async def answer(_room: MatrixRoom, event: Any) -> None:
                    if event.body == numbered(1)[0]:
                        await bob.say("answer")

                # Carol has this key.
                await bob.say("to all")
                session = server.timeline[ROOM][-1][1]["content"]["session_id"]
                bob.client.add_event_callback(answer, RoomMessageText)
                write(server, numbered(messages))
                server.join(ROOM, "@carol:small", "leave", ALICE.user_id)
                before = list(server.to_device["@carol:small", "CAROLPHONE"])
                await bob.client.sync()
                assert [text for text in bob.read if text != "to all"] == numbered(messages)
                # She is told that she gets no key, at most.
                later = server.to_device["@carol:small", "CAROLPHONE"][len(before) :]
                assert [event["type"] for _, event in later if event["type"] == "m.room.encrypted"] == []
                assert server.timeline[ROOM][-1][1]["content"]["session_id"] != session
                await alice.client.sync()
                assert "answer" in alice.read
            finally:
                await carol.client.close()

    asyncio.run(scenario())
