"""A client whose keys may not be the device's asks for nothing in its name."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from aiohttp import web
from nio import SyncError

from client_pairs import BOB, Person, people
from cryptostore import ConfigurationError
from small_homeserver import Request


def a_hiccup(asked: Request) -> web.StreamResponse | None:
    if not asked.is_for("/keys/query"):
        return None
    return web.json_response({"errcode": "M_UNKNOWN", "error": "try later"}, status=500)


def test_a_sync_waits_until_the_identity_was_checked(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            await alice.say("one")
            server.faults.append(a_hiccup)
            asked = len(server.asked("/sync", BOB.user_id))
            # Bob's device with an empty database, while the homeserver does not say whose keys it knows.
            stranger = await Person(server, BOB, "memory://").start()
            for _ in range(2):
                answer = await stranger.client.sync()
                assert isinstance(answer, SyncError)
                assert answer.status_code == "M_UNKNOWN"
            with suppress(TimeoutError):
                await asyncio.wait_for(stranger.client.sync_forever(timeout=50), 0.5)
            server.faults.clear()
            with pytest.raises(ConfigurationError, match="other keys"):
                await stranger.client.sync()
            assert len(server.asked("/sync", BOB.user_id)) == asked
            await stranger.client.close()
            # Nothing was acknowledged in the name of those who can read it.
            await bob.client.sync()
            assert bob.read == ["one"]

    asyncio.run(scenario())


def test_the_right_database_syncs_as_soon_as_the_identity_was_checked(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            await alice.say("one")
            await bob.restart()
            server.faults.append(a_hiccup)
            assert isinstance(await bob.client.sync(), SyncError)
            server.faults.clear()
            await bob.round()
            assert bob.read == ["one"]

    asyncio.run(scenario())
