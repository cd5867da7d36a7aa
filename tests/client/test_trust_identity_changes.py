"""Users' identities that change: told, accepted, and verified or not any more."""

from __future__ import annotations

import asyncio

import pytest

from client_pairs import ALICE, BOB, Person
from cross_signed import PHONE, identities, known, signed_devices
from cryptostore import CrossSigningKeys, IdentityChange
from cryptostore.trust.cross_signing import MASTER, USER_SIGNING
from spoiling import spoil


def collect_changes(person: Person) -> list[IdentityChange]:
    changes: list[IdentityChange] = []

    async def note(change: IdentityChange) -> None:
        changes.append(change)

    person.client.add_identity_change_callback(note)
    return changes


def test_a_changed_master_key_is_told_until_the_callback_returned_also_over_restarts(url: str) -> None:
    async def scenario() -> None:
        async with identities(url) as (_server, crossed, alice, _bob):
            first = crossed.make(BOB.user_id).public.master
            await alice.round()
            second = crossed.make(BOB.user_id).public.master

            def refuse(_change: IdentityChange) -> None:
                raise ValueError("not now")

            alice.client.add_identity_change_callback(refuse)
            await alice.round()
            with pytest.raises(ValueError, match="not now"):
                await alice.round()
            assert alice.store.identities.is_changed(BOB.user_id)
            await alice.come_back_after_a_crash()
            told = collect_changes(alice)
            await alice.round()
            (change,) = told
            assert (change.user_id, change.pinned_master_key, change.master_key) == (BOB.user_id, first, second)
            assert change.was_verified is False
            assert alice.stored(IdentityChange) == []
            await alice.restart()
            again = collect_changes(alice)
            await alice.round()
            assert again == []
            assert alice.store.identities.is_changed(BOB.user_id)
            third = crossed.make(BOB.user_id).public.master
            await alice.round()
            await alice.round()
            assert [(change.pinned_master_key, change.master_key) for change in again] == [(first, third)]

    asyncio.run(scenario())


def test_the_pinned_master_key_is_back_before_anybody_was_told(url: str) -> None:
    async def scenario() -> None:
        async with identities(url) as (_server, crossed, alice, _bob):
            first = crossed.make(BOB.user_id)
            await alice.round()
            crossed.make(BOB.user_id)
            await alice.round()
            crossed.make(BOB.user_id, first)
            await alice.round()
            told = collect_changes(alice)
            await alice.round()
            assert told == []
            assert not alice.store.identities.is_changed(BOB.user_id)

    asyncio.run(scenario())


def test_an_identity_is_accepted_and_a_verification_withdrawn(url: str) -> None:
    async def scenario() -> None:
        async with identities(url) as (_server, crossed, alice, _bob):
            assert alice.client.accept_identity(BOB.user_id) is False
            first = crossed.make(BOB.user_id).public.master
            await alice.round()
            store = alice.store.identities
            assert store.set_verified(BOB.user_id, "another") is False
            assert store.set_verified(BOB.user_id, first) is True
            assert store.is_verified(BOB.user_id)
            second = crossed.make(BOB.user_id).public.master
            await alice.round()
            assert not store.is_verified(BOB.user_id)
            assert store.is_stopped(BOB.user_id)
            assert alice.client.accept_identity(BOB.user_id) is True
            assert (store.is_changed(BOB.user_id), store.is_verified(BOB.user_id)) == (False, False)
            assert known(alice).pinned_master_key == second
            assert alice.client.accept_identity(BOB.user_id) is False
            assert alice.client.withdraw_verification(BOB.user_id) is False
            store.set_verified(BOB.user_id, second)
            assert alice.client.withdraw_verification(BOB.user_id) is True
            await alice.client.flush()
            await alice.come_back_after_a_crash()
            assert not alice.store.identities.is_verified(BOB.user_id)
            assert not alice.store.identities.is_stopped(BOB.user_id)

    asyncio.run(scenario())


def test_who_was_verified_on_another_device_of_the_account_is_verified(url: str) -> None:
    async def scenario() -> None:
        async with identities(url) as (_server, crossed, alice, _bob):
            seeds = crossed.make(ALICE.user_id)
            crossed.make(BOB.user_id)
            crossed.verify(ALICE.user_id, BOB.user_id)
            await alice.round()
            # Anybody could have made that identity: the account does not have its seeds.
            assert not alice.store.identities.is_verified(BOB.user_id)
            alice.store.secrets.put(USER_SIGNING, seeds.user_signing)
            alice.store.secrets.put(MASTER, seeds.master)
            crossed.changed(BOB.user_id)
            crossed.changed(ALICE.user_id)
            await alice.round()
            assert alice.store.identities.is_verified(BOB.user_id)
            assert alice.store.identities.is_verified(ALICE.user_id)
            crossed.make(BOB.user_id)
            await alice.round()
            assert alice.store.identities.is_stopped(BOB.user_id)
            crossed.verify(ALICE.user_id, BOB.user_id)
            await alice.round()
            assert alice.store.identities.is_verified(BOB.user_id)
            assert not alice.store.identities.is_stopped(BOB.user_id)
            # The homeserver shows the signature for ever, and it counts no more.
            assert alice.client.withdraw_verification(BOB.user_id)
            crossed.changed(BOB.user_id)
            await alice.round()
            assert not alice.store.identities.is_verified(BOB.user_id)
            assert alice.store.identities.set_verified(BOB.user_id, known(alice).master_key)
            crossed.changed(BOB.user_id)
            await alice.round()
            assert alice.store.identities.is_verified(BOB.user_id)

    asyncio.run(scenario())


def test_an_identity_whose_record_cannot_be_read_stops_room_keys_until_it_is_accepted(url: str) -> None:
    async def scenario() -> None:
        async with identities(url) as (_server, crossed, alice, _bob):
            crossed.make_for(PHONE)
            await alice.round()
            await alice.client.close()
            spoil(url, ALICE, CrossSigningKeys)
            alice.client = alice._make()
            await alice.start()
            crossed.changed(BOB.user_id)
            await alice.round()
            assert known(alice) is None
            assert alice.store.identities.is_stopped(BOB.user_id)
            assert alice.client.accept_identity(BOB.user_id) is True
            await alice.round()
            assert signed_devices(known(alice)) == {BOB.device_id}
            await alice.restart()
            assert signed_devices(known(alice)) == {BOB.device_id}
            assert not alice.store.identities.is_stopped(BOB.user_id)

    asyncio.run(scenario())


def test_a_notice_that_cannot_be_read_is_given_again(url: str) -> None:
    async def scenario() -> None:
        async with identities(url) as (_server, crossed, alice, _bob):
            crossed.make(BOB.user_id)
            await alice.round()
            second = crossed.make(BOB.user_id).public.master
            await alice.round()
            await alice.client.close()
            spoil(url, ALICE, IdentityChange)
            alice.client = alice._make()
            await alice.start()
            told = collect_changes(alice)
            await alice.round()
            assert [change.master_key for change in told] == [second]

    asyncio.run(scenario())
