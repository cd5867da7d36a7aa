"""Two of our clients verify each other: between devices and in a room, whoever asks."""

from __future__ import annotations

import asyncio

import pytest

from cryptostore import VerificationCancelled
from cryptostore.trust.exchange import Phase
from verifying import ALICE, BOB, ROOM, compared, ended, is_verified, left_over, requested, syncing, town, until

FLOW = ["request", "ready", "start", "accept", "key", "key", "mac", "mac", "done", "done"]


@pytest.mark.parametrize("room", [None, ROOM], ids=["between devices", "in a room"])
def test_two_users_verify_each_other(memory_url: str, room: str | None) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.alice, place.bob):
            alice, bob = place.alice, place.bob
            alices, bobs = await requested(place, room)
            assert (bobs.user_id, bobs.device_id) == (ALICE.user_id, ALICE.device_id)
            assert (bobs.room_id, bobs.we_asked) == (room or "", False)
            await bobs.accept()
            assert left_over(bob) == [alices.transaction_id]
            await compared(alices, bobs)
            assert left_over(alice) == [alices.transaction_id]
            await alices.confirm()
            await bobs.confirm()
            seen = await ended(alices, bobs)
            assert [(each.user_id, each.user, each.device) for each in seen] == [
                (BOB.user_id, True, True),
                (ALICE.user_id, True, True),
            ]
            for person, other in ((alice, bob), (bob, alice)):
                assert place.has_signed(person, other)
                assert is_verified(person, other)
                await until(lambda person=person: left_over(person) == [])  # type: ignore[misc]
            assert sorted(place.sent(alice) + place.sent(bob)) == sorted(FLOW)
            in_clear = [event for _, event in place.server.timeline[ROOM] if "verification" in str(event)]
            assert len(in_clear) == (len(FLOW) if room else 0)
            assert alice.client.statistics.loop_reads == bob.client.statistics.loop_reads == 0

    asyncio.run(scenario())


def test_without_a_callback_a_request_is_declined(memory_url: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.alice, place.bob):
            for room in (None, ROOM):
                alices = await place.alice.client.request_verification(BOB.user_id, room)
                with pytest.raises(VerificationCancelled, match=r"cancelled by the other side: m\.user") as caught:
                    await ended(alices)
                assert (caught.value.code, caught.value.by_us) == ("m.user", False)
            await until(lambda: left_over(place.bob) == left_over(place.alice) == [])

    asyncio.run(scenario())


def test_what_people_see_differs(memory_url: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.alice, place.bob):
            alices, bobs = await requested(place)
            await bobs.accept()
            await compared(alices, bobs)
            await bobs.confirm()
            await alices.mismatch()
            for each in (alices, bobs):
                with pytest.raises(VerificationCancelled, match="did not match"):
                    await ended(each)
                assert each.phase is Phase.CANCELLED
            assert not is_verified(place.alice, place.bob)
            assert not is_verified(place.bob, place.alice)
            assert not place.has_signed(place.bob, place.alice)

    asyncio.run(scenario())
