"""A verification whose client is cut off at each of its requests, and one whose events are encrypted."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from aiohttp import web
from nio import RoomSendResponse

from client_pairs import Person
from cryptostore import VerificationCancelled
from cryptostore.nio import Verification
from cryptostore.trust import exchange_contents
from small_homeserver import HangUp, Json, Request
from verifying import ALICE, BOB, ROOM, Asked, compared, ended, is_verified, left_over, syncing, town, until

STEPS = ["m.key.verification.ready", "keys/query", "key.verification.key", "key.verification.mac", "signatures", "done"]


async def goes_on(verification: Verification) -> None:
    """Do what a person would, as far as it comes."""
    with suppress(VerificationCancelled):
        await verification.comparison()
        await verification.confirm()


@pytest.mark.parametrize("room", [None, ROOM], ids=["between devices", "in a room"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("arrives", [False, True], ids=["never sent", "answer lost"])
def test_who_is_killed_at_any_request_cancels_and_can_begin_again(
    memory_url: str, room: str | None, step: str, arrives: bool
) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place:
            asked = Asked(place.bob)
            is_cut = asyncio.Event()

            def cut(request: Request) -> web.StreamResponse | None:
                """From this request of Bob's on, nothing of him arrives."""
                if request.user != BOB.user_id or not (is_cut.is_set() or request.is_for(step)):
                    return None
                is_first = not is_cut.is_set()
                is_cut.set()
                return None if is_first and arrives else HangUp()

            async with syncing(place.alice):
                alices = await place.alice.client.request_verification(BOB.user_id, room)
                going_on = asyncio.create_task(goes_on(alices))
                await place.bob.round()
                bobs = await asked.next()
                place.server.faults.append(cut)
                bobs_sync = asyncio.create_task(until_cut(place.bob, is_cut))
                with suppress(Exception):
                    async with asyncio.timeout(5):
                        await take_part(bobs, is_cut)
                await is_cut.wait()
                bobs_sync.cancel()
                going_on.cancel()
                await place.bob.come_back_after_a_crash()
                place.server.faults.clear()
                async with syncing(place.bob):
                    await until(lambda: alices._has_ended.is_set())
                    await until(lambda: not left_over(place.bob) and not left_over(place.alice))
                    await begin_again(place.alice, place.bob, room)

    asyncio.run(scenario())


async def until_cut(person: Person, is_cut: asyncio.Event) -> None:
    while not is_cut.is_set():
        with suppress(AssertionError):
            await person.round()


async def take_part(verification: Verification, is_cut: asyncio.Event) -> None:
    """Accept and confirm, until it is cut off."""
    steps = asyncio.create_task(accepted_and_confirmed(verification))
    await asyncio.wait([steps, asyncio.create_task(is_cut.wait())], return_when=asyncio.FIRST_COMPLETED)
    steps.cancel()


async def accepted_and_confirmed(verification: Verification) -> None:
    await verification.accept()
    await verification.comparison()
    await verification.confirm()
    await verification.finished()


async def begin_again(alice: Person, bob: Person, room: str | None) -> None:
    asked = Asked(bob)
    alices = await alice.client.request_verification(BOB.user_id, room)
    bobs = await asked.next()
    await bobs.accept()
    await compared(alices, bobs)
    await alices.confirm()
    await bobs.confirm()
    await ended(alices, bobs)
    assert is_verified(alice, bob)
    assert is_verified(bob, alice)


def test_a_request_whose_id_was_never_noted_is_cancelled(memory_url: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place:
            asked = Asked(place.bob)
            await place.alice.client.request_verification(BOB.user_id, ROOM)
            assert not left_over(place.alice)
            await place.alice.come_back_after_a_crash()
            async with syncing(place.alice, place.bob):
                bobs = await asked.next()
                with pytest.raises(VerificationCancelled, match=r"m\.unknown_transaction"):
                    await ended(bobs)
                await begin_again(place.alice, place.bob, ROOM)
            assert place.sent(place.alice).count("cancel") == 1

    asyncio.run(scenario())


def test_events_that_the_other_side_encrypts_count(memory_url: str) -> None:
    async def encrypted(person: Person, kind: str, content: Json) -> str:
        sent = await person.client.room_send(ROOM, kind, content, ignore_unverified_devices=True)
        assert isinstance(sent, RoomSendResponse)
        return str(sent.event_id)

    async def scenario() -> None:
        async with town(memory_url) as place:
            asked = Asked(place.bob)
            request = exchange_contents.room_request(ALICE.device_id, BOB.user_id)
            event_id = await encrypted(place.alice, "m.room.message", request)
            async with syncing(place.bob):
                bobs = await asked.next()
                assert bobs.transaction_id == event_id
                await bobs.accept()
                relation = {"m.relates_to": {"rel_type": "m.reference", "event_id": event_id}}
                cancel = {"code": "m.user", "reason": "no", **relation}
                await encrypted(place.alice, "m.key.verification.cancel", cancel)
                with pytest.raises(VerificationCancelled, match=r"m\.user no"):
                    await ended(bobs)

    asyncio.run(scenario())
