"""Who is in the room, and with which devices, is known before the room's key counts as shared."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from nio import GroupEncryptionError, MatrixRoom, RoomMemberEvent, RoomMessageText
from nio.exceptions import MembersSyncError

from client_pairs import ALICE, BOB, ROOM, Person, people
from cryptostore import Account
from small_homeserver import Request, SmallHomeserver

CAROL = Account("@carol:small", "CAROLPHONE")


@asynccontextmanager
async def three_people(url: str) -> AsyncIterator[tuple[SmallHomeserver, Person, Person]]:
    """Alice, whose key Bob has, and Carol, who is in no room yet."""
    async with people(url) as (server, alice, _bob):
        await alice.say("before Carol came")
        await alice.round()
        carol = Person(server, CAROL, url)
        await carol.start()
        await carol.round()
        yield server, alice, carol
        await carol.client.close()


async def assert_reads(carol: Person, *texts: str) -> None:
    for _ in range(2):
        await carol.round()
    assert carol.read == list(texts)


def refuses(part: str) -> Any:
    def refuse(request: Request) -> web.Response | None:
        if request.is_for(part) and request.user == ALICE.user_id:
            return web.json_response({"errcode": "M_UNKNOWN", "error": "no"}, status=500)
        return None

    return refuse


def forget_that_she_came(server: SmallHomeserver) -> None:
    """With lazily loaded members a sync does not bring everybody."""
    server.timeline[ROOM].pop()


@pytest.mark.parametrize("event", [RoomMemberEvent, RoomMessageText])
def test_somebody_who_has_just_come_reads_the_answer_of_a_callback(memory_url: str, event: type[Any]) -> None:
    async def scenario() -> None:
        async with three_people(memory_url) as (server, alice, carol):

            async def welcome(_room: MatrixRoom, event: Any) -> None:
                if event.sender == CAROL.user_id:
                    await alice.say("welcome")

            server.join(ROOM, CAROL.user_id)
            await carol.round()
            await carol.say("I have come")
            alice.client.add_event_callback(welcome, event)
            await alice.client.sync()
            await assert_reads(carol, "I have come", "welcome")

    asyncio.run(scenario())


def test_somebody_who_came_with_the_last_sync_reads_what_follows(memory_url: str) -> None:
    async def scenario() -> None:
        async with three_people(memory_url) as (server, alice, carol):
            server.join(ROOM, CAROL.user_id)
            await alice.client.sync()
            await alice.say("hello")
            await assert_reads(carol, "hello")

    asyncio.run(scenario())


def test_nothing_is_sent_while_the_homeserver_does_not_say_which_devices_there_are(memory_url: str) -> None:
    async def scenario() -> None:
        async with three_people(memory_url) as (server, alice, carol):
            server.join(ROOM, CAROL.user_id)
            await alice.client.sync()
            server.faults.append(refuses("keys/query"))
            asked = len(server.asked("sendToDevice")), len(server.asked("/send/m.room"))
            with pytest.raises(GroupEncryptionError):
                await alice.say("too early")
            assert (len(server.asked("sendToDevice")), len(server.asked("/send/m.room"))) == asked
            server.faults.clear()
            await alice.say("in time")
            await assert_reads(carol, "in time")

    asyncio.run(scenario())


def test_nobody_waits_for_users_whose_homeserver_is_away(memory_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with three_people(memory_url) as (server, alice, carol):
            for user in (CAROL.user_id, "@dave:away"):
                server.join(ROOM, user)

            def leave_out(request: Request) -> web.Response | None:
                if request.is_for("keys/query"):
                    known = {user: server._keys_of(user) for user in request.body["device_keys"] if "small" in user}
                    return web.json_response({"device_keys": known, "failures": {"away": {}}})
                return None

            await alice.client.sync()
            server.faults.append(leave_out)
            with caplog.at_level(logging.WARNING):
                await alice.say("for those who are there")
            assert "1 member" in caplog.text
            assert alice.client.users_for_key_query == {"@dave:away"}
            await assert_reads(carol, "for those who are there")

    asyncio.run(scenario())


def test_somebody_who_gets_a_device_while_the_key_is_shared_reads_on_it(memory_url: str) -> None:
    async def scenario() -> None:
        async with three_people(memory_url) as (server, alice, carol):
            tablet = Person(server, Account(CAROL.user_id, "CAROLTABLET"), memory_url)
            await tablet.start()
            await tablet.round()
            later = {(CAROL.user_id, "CAROLTABLET"): server.device_keys.pop((CAROL.user_id, "CAROLTABLET"))}

            def add_the_tablet(request: Request) -> None:
                if request.is_for("sendToDevice") and request.user == ALICE.user_id and later:
                    server.device_keys.update(later)
                    later.clear()
                    # What a sync beside the send does.
                    alice.client.machine.add_changed_users({CAROL.user_id})

            server.join(ROOM, CAROL.user_id)
            await alice.client.sync()
            server.faults.append(add_the_tablet)
            await alice.say("for both")
            await assert_reads(carol, "for both")
            await assert_reads(tablet, "for both")
            await tablet.client.close()

    asyncio.run(scenario())


def test_nothing_is_sent_while_the_homeserver_does_not_say_who_the_members_are(memory_url: str) -> None:
    async def scenario() -> None:
        async with three_people(memory_url) as (server, alice, carol):
            await alice.restart()
            # Carol's devices are known from elsewhere.
            server.make_room("!other:small", ALICE.user_id, CAROL.user_id)
            await alice.round()
            server.join(ROOM, CAROL.user_id)
            forget_that_she_came(server)
            alice.client.invalidate_outbound_session(ROOM)
            server.faults.append(refuses("joined_members"))
            asked = len(server.asked("sendToDevice"))
            for share in (alice.say("too early"), alice.client.share_group_session(ROOM, True)):
                with pytest.raises(MembersSyncError):
                    await share
            assert len(server.asked("sendToDevice")) == asked
            assert alice.client.sharing_session == {}
            server.faults.clear()
            await alice.say("in time")
            await assert_reads(carol, "in time")

    asyncio.run(scenario())


def test_a_key_is_not_used_on_for_members_of_whom_only_the_list_speaks(memory_url: str) -> None:
    async def scenario() -> None:
        async with three_people(memory_url) as (server, alice, carol):
            await alice.say("for Bob")
            server.join(ROOM, CAROL.user_id)
            forget_that_she_came(server)
            await alice.client.joined_members(ROOM)
            await alice.say("for both")
            await assert_reads(carol, "for both")

    asyncio.run(scenario())


def test_somebody_of_whose_leaving_the_list_speaks_first_reads_nothing_more(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, _bob):
            await alice.say("for Bob")
            server.join(ROOM, BOB.user_id, "leave")
            await alice.client.joined_members(ROOM)
            await alice.client.sync()
            await alice.say("not for Bob")
            session = alice.client.machine.outbound_group_sessions[ROOM]
            assert session.users_shared_with == set()

    asyncio.run(scenario())


def test_a_key_of_an_earlier_process_is_not_judged_by_half_a_list(memory_url: str) -> None:
    async def scenario() -> None:
        async with three_people(memory_url) as (server, alice, _carol):
            await alice.restart()
            await alice.client.sync()
            server.faults.append(refuses("joined_members"))
            with pytest.raises(MembersSyncError):
                await alice.say("too early")
            statistics = alice.client.statistics
            assert (statistics.adopted_sessions, statistics.dropped_sessions) == (0, 0)
            server.faults.clear()
            await alice.say("in time")
            assert statistics.adopted_sessions == 1

    asyncio.run(scenario())
