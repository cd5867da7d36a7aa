"""What a homeserver leaves out of a timeline reaches the callbacks all the same: in order, each event once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web
from nio import AsyncClient, AsyncClientConfig, MatrixRoom, RoomMessageText

from client_gaps import fault, is_at_rest, numbered, pages, refuse, write
from client_pairs import ALICE, BOB, ROOM, Person, people, say_in_new_sessions
from cryptostore import StoreClosed, SyncToken, TimelineGap
from small_homeserver import Request, page


class Stumble(Exception):
    """What a callback raises."""


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


def test_a_homeserver_behind_a_gateway_gets_the_headers_of_the_program(memory_url: str) -> None:
    config = AsyncClientConfig(max_timeouts=0, custom_headers={"X-Gateway": "pass"})

    def gateway(request: Request) -> web.StreamResponse | None:
        return None if request.headers.get("X-Gateway") == "pass" else page(403)

    async def scenario() -> None:
        async with people(memory_url, config=config) as (server, _alice, bob):
            server.faults.append(gateway)
            write(server, numbered(30))
            await bob.client.sync()
            assert bob.read == numbered(30)

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
