"""One sharing of a room's key at a time, and what makes it worthless meanwhile."""

from __future__ import annotations

import asyncio

from cryptostore.nio.client.sharing_turns import SharingTurns

ROOM, OTHER = "!room:small", "!other:small"


def test_a_room_is_shared_inside_its_turn_alone() -> None:
    events: dict[str, asyncio.Event] = {}
    turns = SharingTurns(events)
    with turns.taken(ROOM):
        assert ROOM in turns
        assert OTHER not in turns
        event = events[ROOM]
        assert not event.is_set()
    assert ROOM not in turns
    assert events == {}
    # What nio itself waits for.
    assert event.is_set()


def test_a_turn_that_raises_is_over() -> None:
    turns = SharingTurns({})
    try:
        with turns.taken(ROOM):
            turns.overtake(ROOM)
            raise ValueError(ROOM)
    except ValueError:
        pass
    assert ROOM not in turns
    assert not turns.is_overtaken(ROOM)


def test_waiting_ends_after_the_last_turn_that_was_taken_meanwhile() -> None:
    async def scenario() -> list[str]:
        turns = SharingTurns({})
        said: list[str] = []

        async def share(name: str, over: asyncio.Event) -> None:
            with turns.taken(ROOM):
                await over.wait()
                said.append(name)

        first, second = asyncio.Event(), asyncio.Event()

        async def share_twice() -> None:
            await share("first", first)
            await share("second", second)

        sharing = asyncio.create_task(share_twice())
        await asyncio.sleep(0)
        waiting = asyncio.create_task(turns.wait(ROOM))
        first.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        second.set()
        await waiting
        await sharing
        return said

    assert asyncio.run(scenario()) == ["first", "second"]


def test_only_what_is_being_shared_is_overtaken_and_a_new_round_is_not() -> None:
    turns = SharingTurns({})
    turns.overtake(ROOM)
    assert not turns.is_overtaken(ROOM)
    with turns.taken(ROOM):
        turns.overtake(ROOM)
        turns.overtake(OTHER)
        assert turns.is_overtaken(ROOM)
        assert not turns.is_overtaken(OTHER)
        turns.begin_round(ROOM)
        assert not turns.is_overtaken(ROOM)
