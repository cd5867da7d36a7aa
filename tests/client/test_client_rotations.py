"""How long a room's key is used, where the room says so."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from client_pairs import ALICE, ROOM, people, session_ids, while_down
from small_homeserver import SmallHomeserver


def say_rotation(server: SmallHomeserver, **numbers: Any) -> None:
    """The room's admin says how long a key is to be used."""
    content = {"algorithm": "m.megolm.v1.aes-sha2", **numbers}
    event = server._set_state(ROOM, "m.room.encryption", "", content, ALICE.user_id)
    server.timeline[ROOM].append((server._advance(), event))


def test_a_room_says_how_many_messages_a_key_is_for(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            await alice.say("1")
            say_rotation(server, rotation_period_msgs=2)
            await alice.client.sync()
            for text in ("2", "3"):
                await alice.say(text)
            await alice.restart()
            await alice.client.sync()
            for text in ("4", "5"):
                await alice.say(text)
            assert alice.client.statistics.adopted_sessions == 1
            one, two, three, four, five = session_ids(server)
            assert len({one, three, five}) == 3
            assert (one, three) == (two, four)
            await bob.round()
            assert bob.read == list("12345")

    asyncio.run(scenario())


def test_a_room_says_how_long_a_key_is_used(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, _bob):
            say_rotation(server, rotation_period_ms=7_200_000)
            await alice.client.sync()
            await alice.say("1")
            for minutes in (110, 10):
                await while_down(alice, created_at=lambda at, minutes=minutes: at - timedelta(minutes=minutes))
                await alice.say(f"after {minutes}")
            first, second, third = session_ids(server)
            assert first == second != third

    asyncio.run(scenario())


def test_a_key_that_grew_too_old_before_anybody_was_told_of_it_is_not_used(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (_server, alice, bob):
            alice.client.machine.create_outbound_group_session(ROOM)
            alice.client.machine.outbound_group_sessions[ROOM].creation_time -= timedelta(days=8)
            await alice.say("after a long outage")
            await bob.round()
            assert bob.read == ["after a long outage"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("said", "messages", "age"),
    [
        ({"rotation_period_msgs": 0, "rotation_period_ms": 0}, 1, timedelta(hours=1)),
        ({"rotation_period_msgs": 2**53 - 1, "rotation_period_ms": 2**53 - 1}, 100, timedelta(days=7)),
        ({"rotation_period_msgs": -1, "rotation_period_ms": 10**30}, 100, timedelta(days=7)),
        ({"rotation_period_msgs": True, "rotation_period_ms": "1"}, 100, timedelta(days=7)),
        ({"rotation_period_msgs": [], "rotation_period_ms": 1.0}, 100, timedelta(days=7)),
    ],
)
def test_whatever_a_room_says_a_key_can_be_used_and_ends(
    memory_url: str, said: dict[str, Any], messages: int, age: timedelta
) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            say_rotation(server, **said)
            await alice.client.sync()
            await asyncio.gather(*map(alice.say, "abc"))
            session = alice.client.machine.outbound_group_sessions[ROOM]
            assert (session.max_messages, session.max_age) == (messages, age)
            await bob.round()
            assert sorted(bob.read) == list("abc")

    asyncio.run(scenario())
