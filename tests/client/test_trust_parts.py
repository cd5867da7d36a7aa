"""What the trust parts of a client are told, and when."""

from __future__ import annotations

import asyncio

import pytest
from nio import RoomKeyEvent, RoomMessageText

from client_pairs import people


def test_parts_are_told_before_the_program_and_after_each_sync(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (_, alice, bob):
            told: list[str] = []

            async def note(event: object, *_room: object) -> None:
                told.append(type(event).__name__)

            trust = bob.client._trust
            trust.on_to_device.append(note)
            trust.on_room_event.append(note)
            trust.after_sync.append(note)
            bob.client.add_event_callback(lambda *_: told.append("program"), RoomMessageText)
            await alice.say("one")
            await bob.round()
            assert told == [RoomKeyEvent.__name__, RoomMessageText.__name__, "program", "SyncAnswer"]

    asyncio.run(scenario())


def test_every_part_is_told_of_the_end_and_the_account_is_given_back(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (_, _alice, bob):
            told: list[str] = []

            async def fail() -> None:
                told.append("first")
                raise RuntimeError("first")

            async def note() -> None:
                told.append("second")

            bob.client._trust.on_close.extend([fail, note])
            with pytest.raises(RuntimeError, match="first"):
                await bob.client.close()
            assert told == ["first", "second"]
            assert bob.client.store is None
            bob.client._trust.on_close.clear()
            opened: list[bool] = []
            bob.client._trust.on_open.append(lambda: opened.append(bob.client.production_store.is_confirmed))
            await bob.client.open()
            assert opened == [True]

    asyncio.run(scenario())
