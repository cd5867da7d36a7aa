"""Who is verified at the end: the identity that was compared, and nobody else."""

from __future__ import annotations

import asyncio

import pytest

from cryptostore import VerificationCancelled
from cryptostore.nio import IdentityState
from cryptostore.trust.cross_signing import Seeds
from verifying import (
    BOB,
    begun,
    ended,
    is_verified,
    syncing,
    town,
    until,
)


def test_only_the_master_key_makes_a_user_verified(memory_url: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.alice, place.bob):
            # Bob's client does not know that the identity is Bob's.
            for name in Seeds.new().by_name():
                place.bob.store.secrets.drop(name)
            alices, bobs = await begun(place)
            await alices.confirm()
            await bobs.confirm()
            seen = await ended(alices, bobs)
            assert [(each.user, each.device) for each in seen] == [(False, True), (True, True)]
            assert not is_verified(place.alice, place.bob)
            assert not place.has_signed(place.alice, place.bob)
            assert place.alice.client.device_store[BOB.user_id][BOB.device_id].verified
            # Without seeds, what Bob has verified stays in his own store.
            assert is_verified(place.bob, place.alice)
            assert not place.has_signed(place.bob, place.alice)

    asyncio.run(scenario())


def test_an_identity_that_changes_meanwhile_is_not_verified(memory_url: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.alice, place.bob):
            alices, bobs = await begun(place)
            place.known.set_identity(BOB.user_id, Seeds.new())
            await until(lambda: place.alice.store.identities.is_changed(BOB.user_id))
            await alices.confirm()
            await bobs.confirm()
            with pytest.raises(VerificationCancelled):
                await ended(alices)
            assert not is_verified(place.alice, place.bob)

    asyncio.run(scenario())


def test_a_verified_user_with_a_new_identity_is_verified_anew(memory_url: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.alice, place.bob):
            master_key = place.seeds[BOB.user_id].public.master
            await until(lambda: place.alice.store.identities.set_verified(BOB.user_id, master_key))
            # Bob's client would drop the new keys if it were just being told of the old ones.
            await until(lambda: place.bob.client.identity_state is IdentityState.SIGNED)
            place.seeds[BOB.user_id] = place.give_identity(place.bob)
            await until(lambda: place.alice.store.identities.is_stopped(BOB.user_id))
            alices, bobs = await begun(place)
            await alices.confirm()
            await bobs.confirm()
            await ended(alices, bobs)
            assert is_verified(place.alice, place.bob)
            assert not place.alice.store.identities.is_stopped(BOB.user_id)

    asyncio.run(scenario())
