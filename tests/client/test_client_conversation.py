"""Two clients, a homeserver between them, and restarts."""

from __future__ import annotations

import asyncio

from client_pairs import people
from cryptostore import OutboundGroupSession, ReplayPage, SyncToken


def test_messages_are_read_and_nothing_waits_for_the_database_on_the_loop(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (_, alice, bob):
            await alice.say("one")
            await alice.say("two")
            await bob.round()
            await bob.say("three")
            await alice.round()
            assert bob.read == ["one", "two"]
            assert alice.read[-1] == "three"
            assert alice.client.statistics.loop_reads == bob.client.statistics.loop_reads == 0

    asyncio.run(scenario())


def test_a_restart_keeps_outbound_sessions_tokens_and_replay_protection(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            await alice.say("one")
            await bob.round()
            (session,) = alice.stored(OutboundGroupSession)
            shares = len(server.asked("sendToDevice"))
            await alice.restart()
            await bob.restart()
            await alice.round()
            await alice.say("two")
            assert len(server.asked("sendToDevice")) == shares
            assert alice.client.statistics.adopted_sessions == 1
            (again,) = alice.stored(OutboundGroupSession)
            assert again.created_at == session.created_at
            assert (session.message_count, again.message_count) == (1, 2)
            await bob.round()
            assert bob.read == ["one", "two"]
            assert [len(page.events) for page in bob.stored(ReplayPage)] == [2 * 12]
            assert bob.stored(SyncToken) == [SyncToken(bob.client.next_batch)]
            assert bob.client.statistics.loop_reads == 0

    asyncio.run(scenario())
