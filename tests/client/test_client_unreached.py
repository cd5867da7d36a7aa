"""Devices that offered no one-time key get the room's key when they have some."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from nio import RoomSendResponse
from nio.exceptions import OlmUnverifiedDeviceError

from client_pairs import ALICE, BOB, ROOM, Person, people
from clock import Clock
from cryptostore import UnreachedDevice
from small_homeserver import Request, SmallHomeserver

PHONE = (BOB.user_id, BOB.device_id)


def claims(server: SmallHomeserver) -> int:
    return len(server.asked("keys/claim", ALICE.user_id))


def session_ids(server: SmallHomeserver) -> set[str]:
    return {event["content"]["session_id"] for _, event in server.timeline[ROOM] if "session_id" in event["content"]}


def test_a_drained_device_gets_the_same_room_key_when_it_has_keys_again(url: str, clock: Clock) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            server.take_all_keys(PHONE)
            await alice.say("one")
            await bob.round()
            await alice.say("two")
            assert claims(server) == 1
            clock.passes(minutes=1)
            for text in ("three", "four"):
                await alice.say(text)
            assert claims(server) == 2
            await bob.round()
            assert bob.read == ["three", "four"]
            assert len(session_ids(server)) == 1
            await alice.client.flush()
            assert alice.stored(UnreachedDevice) == []
            assert alice.client.statistics.loop_reads == 0

    asyncio.run(scenario())


def test_the_pauses_grow_to_an_hour_whatever_room_keys_are_used(memory_url: str, clock: Clock) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, _bob):
            server.take_all_keys(PHONE)
            at = []
            for minute in range(240):
                before = claims(server)
                await alice.say(str(minute))
                at += [minute] * (claims(server) - before)
                clock.passes(minutes=1)
            assert at == [0, 1, 3, 7, 15, 31, 63, 123, 183]
            assert len(session_ids(server)) == 3

    asyncio.run(scenario())


@pytest.mark.parametrize("crashes", [False, True])
def test_a_restart_forgets_no_device_and_asks_for_none_too_early(url: str, clock: Clock, crashes: bool) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            server.take_all_keys(PHONE)
            await alice.say("one")
            await (alice.come_back_after_a_crash() if crashes else alice.restart())
            await alice.client.sync()
            await alice.say("two")
            assert claims(server) == 1
            await bob.round()
            clock.passes(minutes=1)
            await alice.say("three")
            assert claims(server) == 2
            await bob.round()
            assert bob.read == ["three"]
            assert len(session_ids(server)) == 1
            assert alice.client.statistics.adopted_sessions == 1
            assert alice.client.statistics.loop_reads == 0

    asyncio.run(scenario())


def test_a_device_that_writes_is_sent_the_key_at_once(memory_url: str, clock: Clock) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            server.take_all_keys(PHONE)
            await alice.say("one")
            await bob.say("hello")
            await alice.round()
            await alice.say("two")
            await bob.round()
            assert bob.read == ["hello", "two"]
            assert claims(server) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("status", [400, 500])
def test_a_message_is_sent_although_the_homeserver_refuses_one_time_keys(
    memory_url: str, clock: Clock, status: int
) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            server.take_all_keys(PHONE)
            await alice.say("one")
            await bob.round()
            clock.passes(minutes=1)

            def refuse(request: Request) -> web.Response | None:
                error = {"errcode": "M_UNKNOWN", "error": "no"}
                return web.json_response(error, status=status) if request.is_for("keys/claim") else None

            server.faults.append(refuse)
            await alice.say("two")
            server.faults.clear()
            clock.passes(minutes=2)
            await alice.say("three")
            await bob.round()
            assert bob.read == ["three"]

    asyncio.run(scenario())


def test_a_device_whose_key_could_not_be_sent_is_tried_again(memory_url: str, clock: Clock) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            server.take_all_keys(PHONE)
            await alice.say("one")
            await bob.round()
            clock.passes(minutes=1)

            def refuse(request: Request) -> web.Response | None:
                error = {"errcode": "M_UNKNOWN", "error": "no"}
                return web.json_response(error, status=500) if request.is_for("sendToDevice") else None

            server.faults.append(refuse)
            await alice.say("two")
            server.faults.clear()
            await alice.say("three")
            clock.passes(minutes=2)
            await alice.say("four")
            await bob.round()
            assert bob.read == ["four"]
            assert claims(server) == 2

    asyncio.run(scenario())


def test_an_unverified_device_gets_the_key_only_where_the_sender_ignores_that(memory_url: str, clock: Clock) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            server.take_all_keys(PHONE)
            content = {"msgtype": "m.text", "body": "not for strangers"}
            for _ in range(2):
                sent = await alice.client.room_send(ROOM, "m.room.message", content)
                assert isinstance(sent, RoomSendResponse)
                await bob.round()
                clock.passes(minutes=1)
            assert bob.read == []
            # The next key waits for a decision, as in nio.
            alice.client.invalidate_outbound_session(ROOM)
            with pytest.raises(OlmUnverifiedDeviceError):
                await alice.client.room_send(ROOM, "m.room.message", content)

    asyncio.run(scenario())


def test_a_blacklisted_device_is_not_tried(memory_url: str, clock: Clock) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            server.take_all_keys(PHONE)
            await alice.say("one")
            await bob.round()
            alice.client.blacklist_device(alice.client.device_store[BOB.user_id][BOB.device_id])
            clock.passes(hours=1)
            await alice.say("two")
            await bob.round()
            assert bob.read == []
            assert claims(server) == 1

    asyncio.run(scenario())


def test_a_device_that_is_gone_is_not_tried(memory_url: str, clock: Clock) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, _bob):
            server.take_all_keys(PHONE)
            await alice.say("one")
            alice.client.device_store[BOB.user_id][BOB.device_id].deleted = True
            clock.passes(minutes=1)
            await alice.say("two")
            await alice.client.flush()
            assert claims(server) == 1
            assert alice.stored(UnreachedDevice) == []

    asyncio.run(scenario())


def test_many_sends_at_once_ask_for_a_key_once(memory_url: str, clock: Clock) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            server.take_all_keys(PHONE)
            await alice.say("one")
            await bob.round()
            clock.passes(minutes=1)
            await asyncio.gather(*(alice.say(str(number)) for number in range(5)))
            await bob.round()
            assert sorted(bob.read) == ["0", "1", "2", "3", "4"]
            assert claims(server) == 2
            assert len(server.asked("sendToDevice/m.room.encrypted", ALICE.user_id)) == 1

    asyncio.run(scenario())


def test_a_device_that_comes_back_is_tried_at_once(memory_url: str, clock: Clock) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            server.take_all_keys(PHONE)
            for _ in range(5):
                await alice.say("not for Bob")
                clock.passes(hours=1)
            await alice.say("nor this")
            keys = server.device_keys.pop(PHONE)
            for there in (False, True):
                server.device_keys |= {PHONE: keys} if there else {}
                server.changed.append((server._advance(), BOB.user_id))
                await alice.round()
            await bob.round()
            await alice.say("for Bob")
            await bob.round()
            assert bob.read == ["for Bob"]

    asyncio.run(scenario())


@pytest.mark.parametrize("wrong", [{"days": 31}, {"days": -1}])
def test_a_device_is_tried_whatever_the_clock_said_before(url: str, clock: Clock, wrong: dict[str, float]) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            server.take_all_keys(PHONE)
            await alice.say("one")
            await bob.round()
            clock.passes(**wrong)
            await alice.restart()
            await alice.client.sync()
            await alice.say("two")
            await bob.round()
            assert bob.read == ["two"]

    asyncio.run(scenario())


def wedge(alice: Person) -> None:
    """The Olm session with Bob's phone seems to be broken."""
    device = alice.client.device_store[BOB.user_id][BOB.device_id]
    alice.client.machine._mark_device_for_unwedging(BOB.user_id, device.curve25519)  # type: ignore[no-untyped-call]  # nio


def test_a_broken_session_is_replaced_with_the_same_pauses(memory_url: str, clock: Clock) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            server.take_all_keys(PHONE)
            wedge(alice)
            at = []
            for minute in range(8):
                before = claims(server)
                for _ in range(2):
                    await alice.round()
                at += [minute] * (claims(server) - before)
                clock.passes(minutes=1)
            assert at == [0, 1, 3, 7]
            await bob.round()
            clock.passes(hours=1)
            for _ in range(3):
                await alice.round()
            assert claims(server) == 5
            assert len(server.asked("sendToDevice/m.room.encrypted", ALICE.user_id)) == 1
            await alice.client.flush()
            assert alice.stored(UnreachedDevice) == []

    asyncio.run(scenario())


def test_no_session_is_begun_with_a_device_that_is_gone_or_again_with_one_that_is_back(
    memory_url: str, clock: Clock
) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, _bob):
            wedge(alice)
            keys, one_time_keys = server.device_keys.pop(PHONE), server.one_time_keys.pop(PHONE)
            server.changed.append((server._advance(), BOB.user_id))
            await alice.client.sync()
            await alice.client.keys_query()
            for _ in range(3):
                await alice.round()
                clock.passes(hours=1)
            assert claims(server) == 0
            server.device_keys[PHONE], server.one_time_keys[PHONE] = keys, one_time_keys
            server.changed.append((server._advance(), BOB.user_id))
            for _ in range(3):
                await alice.round()
                clock.passes(hours=1)
            assert claims(server) == 0

    asyncio.run(scenario())
