"""A database that was put back, and `cryptostore restored`: what the client does with the homeserver then."""

from __future__ import annotations

import asyncio

import pytest

from client_pairs import BOB
from cryptostore import DatabaseWentBack
from restored_devices import put_back, restored


@pytest.fixture(params=["sqlite", "postgresql"])
def url(url: str) -> str:
    """A database of which there are backups."""
    return url


def test_all_that_is_said_later_is_read_and_nothing_is_used_twice(url: str) -> None:
    async def scenario() -> None:
        async with put_back(url) as talk:
            with pytest.raises(DatabaseWentBack, match=f"cryptostore restored .* --device-id {BOB.device_id}"):
                await talk.bob.start()
            restored(url)
            await talk.bob.start()
            await talk.bob.is_whole()
            await talk.both_ways("after")
            assert talk.used_twice() == []

    asyncio.run(scenario())


def test_without_it_keys_are_used_twice_and_messages_are_not_read(url: str) -> None:
    async def scenario() -> None:
        async with put_back(url) as talk:
            talk.set_anchor({})
            await talk.bob.start()
            await talk.bob.round()
            await talk.bob.say("with a key that was used")
            await talk.alice.round()
            assert talk.used_twice()
            assert "with a key that was used" not in talk.alice.read

    asyncio.run(scenario())
