"""Users' identities: learned from answers about keys, and the devices that they have signed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from nio import KeysQueryResponse

from client_pairs import ALICE, BOB, ROOM, Person
from cross_signed import PHONE, identities, known, signed_devices
from cryptostore import CrossSigningKeys
from cryptostore.nio import bounds
from cryptostore.nio.trust.key_answers import Signatures
from cryptostore.trust.cross_signing import Seeds


def ed25519(person: Person) -> str:
    return str(person.client.machine.account.identity_keys["ed25519"])


def test_an_identity_and_its_signed_devices_are_kept_with_the_first_master_key_pinned(url: str) -> None:
    async def scenario() -> None:
        async with identities(url) as (_server, crossed, alice, bob):
            assert known(alice) is None
            public = crossed.make(BOB.user_id).public
            await alice.round()
            assert signed_devices(known(alice)) == set()
            crossed.sign(PHONE)
            await alice.round()
            expected = CrossSigningKeys(
                BOB.user_id,
                public.master,
                public.self_signing,
                public.master,
                signed_devices={BOB.device_id: ed25519(bob)},
            )
            assert known(alice) == expected
            await alice.client.flush()
            await alice.come_back_after_a_crash()
            assert known(alice) == expected
            store = alice.store.identities
            assert store.is_signed_by_owner(BOB.user_id, BOB.device_id, ed25519(bob))
            assert not store.is_signed_by_owner(BOB.user_id, BOB.device_id, ed25519(alice))
            assert not store.is_changed(BOB.user_id)
            assert not store.is_verified(BOB.user_id)

    asyncio.run(scenario())


def test_a_device_that_was_signed_and_is_not_any_more_is_not(url: str) -> None:
    async def scenario() -> None:
        async with identities(url) as (_server, crossed, alice, _bob):
            crossed.make_for(PHONE)
            await alice.round()
            crossed.unsign(PHONE)
            await alice.round()
            assert signed_devices(known(alice)) == set()

    asyncio.run(scenario())


@pytest.mark.parametrize("is_new_master", [True, False])
def test_an_old_self_signing_keys_signature_does_not_count(url: str, is_new_master: bool) -> None:
    async def scenario() -> None:
        async with identities(url) as (_server, crossed, alice, _bob):
            old = crossed.make_for(PHONE)
            await alice.round()
            assert signed_devices(known(alice)) == {BOB.device_id}
            fresh = Seeds.new()
            new = crossed.make(
                BOB.user_id, fresh if is_new_master else Seeds(old.master, fresh.self_signing, old.user_signing)
            )
            await alice.round()
            assert known(alice).self_signing_key == new.public.self_signing
            assert signed_devices(known(alice)) == set()
            assert alice.store.identities.is_changed(BOB.user_id) is is_new_master
            crossed.sign(PHONE)
            await alice.round()
            assert signed_devices(known(alice)) == {BOB.device_id}

    asyncio.run(scenario())


def _of_another_user(shown: dict[str, Any]) -> None:
    shown["master_keys"][BOB.user_id]["user_id"] = ALICE.user_id


def _unsigned_subkey(shown: dict[str, Any]) -> None:
    del shown["self_signing_keys"][BOB.user_id]["signatures"]


def _signed_by_another(shown: dict[str, Any]) -> None:
    shown["self_signing_keys"][BOB.user_id] = Seeds.new().upload(BOB.user_id)["self_signing_key"]


def _no_object(shown: dict[str, Any]) -> None:
    shown["master_keys"][BOB.user_id] = ["?"]


def _no_groups(shown: dict[str, Any]) -> None:
    shown["master_keys"] = {"a user": 5, BOB.user_id: {"keys": 5}}


@pytest.mark.parametrize("spoil", [_of_another_user, _unsigned_subkey, _signed_by_another, _no_object, _no_groups])
def test_an_identity_that_is_not_to_be_believed_is_ignored(
    url: str, spoil: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with identities(url) as (_server, crossed, alice, _bob):
            crossed.make_for(PHONE)
            spoil(crossed.shown)
            await alice.round()
            assert known(alice) is None
            assert "ignored an identity" in caplog.text
            assert alice.client.users_for_key_query == set()
            good = crossed.make_for(PHONE)
            await alice.round()
            assert known(alice).master_key == good.public.master
            spoil(crossed.shown)
            crossed.changed(BOB.user_id)
            await alice.round()
            # Neither changed nor gone.
            assert known(alice).master_key == good.public.master
            assert signed_devices(known(alice)) == {BOB.device_id}

    asyncio.run(scenario())


def test_a_homeserver_that_shows_no_identity_any_more_takes_none_away(url: str) -> None:
    async def scenario() -> None:
        async with identities(url) as (_server, crossed, alice, _bob):
            crossed.make_for(PHONE)
            await alice.round()
            for group in crossed.shown.values():
                group.clear()
            crossed.changed(BOB.user_id)
            await alice.round()
            assert signed_devices(known(alice)) == {BOB.device_id}
            crossed.unsign(PHONE)
            await alice.round()
            assert signed_devices(known(alice)) == set()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "change", [{"algorithms": ["m.megolm.v1.aes-sha2"]}, {"user_id": ALICE.user_id}, {"signatures": 5}]
)
def test_a_signature_over_something_else_does_not_count(memory_url: str, change: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with identities(memory_url) as (server, crossed, alice, _bob):
            crossed.make_for(PHONE)
            server.device_keys[PHONE] = server.device_keys[PHONE] | change
            await alice.round()
            assert known(alice) is not None
            assert signed_devices(known(alice)) == set()

    asyncio.run(scenario())


def test_a_device_that_is_gone_stays_signed_until_it_comes_back_unsigned(url: str) -> None:
    async def scenario() -> None:
        async with identities(url) as (server, crossed, alice, _bob):
            crossed.make_for(PHONE)
            await alice.round()
            keys = server.device_keys.pop(PHONE)
            crossed.changed(BOB.user_id)
            await alice.round()
            assert signed_devices(known(alice)) == {BOB.device_id}
            server.device_keys[PHONE] = keys
            crossed.unsign(PHONE)
            await alice.round()
            assert signed_devices(known(alice)) == set()

    asyncio.run(scenario())


def test_devices_that_are_not_kept_are_not_kept_as_signed_ones(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with identities(memory_url) as (server, crossed, alice, _bob):
            monkeypatch.setattr(bounds, "DEVICES", 1)
            crossed.make(BOB.user_id)
            for device_id in ("\0", "x" * 300):
                server.device_keys[BOB.user_id, device_id] = server.device_keys[PHONE]
            crossed.sign(PHONE)
            await alice.round()
            assert signed_devices(known(alice)) == {BOB.device_id}

    asyncio.run(scenario())


def test_a_signature_is_verified_again_only_for_another_device_or_key(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities(memory_url) as (_server, crossed, alice, _bob):
            signatures = alice.store.identities.signatures
            before = signatures.verified
            crossed.make_for(PHONE)
            for _ in range(3):
                crossed.changed(BOB.user_id)
                await alice.round()
            assert signatures.verified == before + 1
            crossed.make(BOB.user_id)
            await alice.round()
            # It has no signature of this key at all.
            assert signatures.verified == before + 1
            crossed.sign(PHONE)
            await alice.round()
            assert signatures.verified == before + 2

    asyncio.run(scenario())


def test_the_signatures_that_are_remembered_are_bounded() -> None:
    seeds, signatures = Seeds.new(), Signatures(remembered=2)
    devices = [seeds.sign_device(BOB.user_id, {"user_id": BOB.user_id, "device_id": str(n)}) for n in range(3)]
    for device in [*devices, devices[2], devices[0]]:
        assert signatures.is_signed(device, BOB.user_id, seeds.public.self_signing)
    assert signatures.verified == 4


def test_a_large_answer_is_handled_in_turns(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities(memory_url) as (server, crossed, alice, _bob):
            users = [f"@user{number}:small" for number in range(90)]
            for user in users:
                server.join(ROOM, user)
                crossed.make(user)
            handled: list[int] = []
            machine: Any = alice.client.machine
            handle = machine._handle_key_query

            def count(response: Any) -> None:
                handled.append(len(response.device_keys))
                handle(response)

            machine._handle_key_query = count
            crossed.changed(BOB.user_id)
            machine.users_for_key_query.update(users)
            answer = await alice.client.keys_query()
            assert isinstance(answer, KeysQueryResponse)
            assert (len(answer.device_keys), sum(handled)) == (len(users), len(users))
            assert max(handled) <= 20
            assert {user for user in users if alice.store.identities.of(user)} == set(users)
            assert alice.client.users_for_key_query == set()

    asyncio.run(scenario())
