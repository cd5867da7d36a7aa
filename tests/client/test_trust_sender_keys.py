"""Device keys inside Olm messages (MSC4147): sent as the homeserver has them, checked, and kept as a proof."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from client_pairs import ALICE, BOB, Person, people
from cross_signed import CrossSigned
from cryptostore import SenderDevice
from cryptostore.trust.signatures import is_signed

PHONE = (ALICE.user_id, ALICE.device_id)


def collect_payloads(person: Person) -> list[Any]:
    """What the person's machine reads in Olm messages."""
    payloads: list[Any] = []
    machine: Any = person.client.machine
    handle = machine._handle_olm_event

    def note(sender: str, sender_key: str, payload: Any) -> Any:
        payloads.append(payload)
        return handle(sender, sender_key, payload)

    machine._handle_olm_event = note
    return payloads


def keys_of(person: Person) -> Any:
    return person.client.machine.account.identity_keys


async def sends_anew(alice: Person, bob: Person, text: str) -> None:
    """Alice's next message has a new key."""
    alice.client.invalidate_outbound_session("!room:small")
    await alice.say(text)
    await bob.round()


def test_olm_messages_carry_the_device_keys_as_they_were_signed(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            crossed = CrossSigned(server)
            payloads = collect_payloads(bob)
            seeds = crossed.make(ALICE.user_id)
            crossed.make("@mallory:small")
            await alice.round()
            await sends_anew(alice, bob, "not signed yet")
            crossed.sign(PHONE)
            server.device_keys[PHONE]["unsigned"] = {"device_display_name": "Phone"}
            server.device_keys[PHONE]["signatures"]["@mallory:small"] = {"ed25519:X": "AAAA"}
            await alice.round()
            await sends_anew(alice, bob, "signed")
            await alice.restart()
            await alice.client.sync()
            await sends_anew(alice, bob, "after a restart")
            shown = [payload["sender_device_keys"] for payload in payloads if payload["type"] == "m.room_key"]
            expected = server.device_keys[PHONE]
            own = {ALICE.user_id: expected["signatures"][ALICE.user_id]}
            assert (
                shown[1]
                == shown[2]
                == {key: expected[key] for key in expected if key != "unsigned"} | {"signatures": own}
            )
            assert [is_signed(each, ALICE.user_id, seeds.public.self_signing) for each in shown] == [False, True, True]
            assert bob.read == ["not signed yet", "signed", "after a restart"]

    asyncio.run(scenario())


def test_a_wrong_object_of_the_homeserver_is_not_sent(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            crossed = CrossSigned(server)
            payloads = collect_payloads(bob)
            server.device_keys[PHONE] = server.device_keys[PHONE] | {"algorithms": []}
            crossed.changed(ALICE.user_id)
            await alice.round()
            await sends_anew(alice, bob, "readable")
            assert [payload.get("sender_device_keys") for payload in payloads] == [None]
            assert bob.read == ["readable"]
            assert "did not sign" in caplog.text

    asyncio.run(scenario())


def _other_device(keys: dict[str, Any]) -> Any:
    return keys | {"device_id": "ANOTHER"}


def _other_user(keys: dict[str, Any]) -> Any:
    return keys | {"user_id": BOB.user_id}


def _no_signature(keys: dict[str, Any]) -> Any:
    return {name: value for name, value in keys.items() if name != "signatures"}


def _another_algorithm(keys: dict[str, Any]) -> Any:
    return keys | {"algorithms": []}


def _other_key(name: str) -> Any:
    def change(keys: dict[str, Any]) -> Any:
        return keys | {"keys": keys["keys"] | {f"{name}:{ALICE.device_id}": 43 * "A"}}

    return change


def _deep(_keys: dict[str, Any]) -> Any:
    nested: Any = []
    for _ in range(200):
        nested = [nested]
    return {"signatures": nested}


@pytest.mark.parametrize(
    "change",
    [
        _other_device,
        _other_user,
        _no_signature,
        _another_algorithm,
        _other_key("ed25519"),
        _other_key("curve25519"),
        _deep,
        lambda _: "device",
        lambda keys: keys | {"keys": []},
        lambda keys: keys | {"device_id": 5},
        lambda keys: keys | {"signatures": {ALICE.user_id: []}},
    ],
)
def test_a_message_with_device_keys_that_are_not_the_senders_is_refused(
    memory_url: str, change: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            CrossSigned(server).changed(ALICE.user_id)
            await alice.round()
            own = alice.client.machine.own_device_keys
            assert own._present is not None
            own._present = change(own._present)
            await sends_anew(alice, bob, "cannot be read")
            assert bob.read == []
            assert bob.client.statistics.poisoned_events == 1
            assert "are not the sender's" in caplog.text
            assert bob.stored(SenderDevice) == []

    asyncio.run(scenario())


@pytest.mark.parametrize("is_known", [True, False])
def test_what_a_signed_device_proves_is_kept_once(url: str, is_known: bool) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            crossed = CrossSigned(server)
            crossed.make_for(PHONE)
            # A signature by an earlier identity: the homeserver keeps it.
            seeds = crossed.make_for(PHONE)
            await alice.round()
            if is_known:
                await bob.round()
            await sends_anew(alice, bob, "one")
            keys = keys_of(alice)
            (row,) = bob.stored(SenderDevice)
            assert row.user_id == ALICE.user_id
            assert (row.sender_key, row.signing_key, row.device_id) == (
                keys["curve25519"],
                keys["ed25519"],
                ALICE.device_id,
            )
            # Which of the two counts is found out when the identity is known.
            assert is_signed(server.device_keys[PHONE], ALICE.user_id, row.self_signing_key)
            assert not is_known or row.self_signing_key == seeds.public.self_signing
            await sends_anew(alice, bob, "two")
            assert bob.store.sender_devices.is_dirty is False
            (row,) = bob.stored(SenderDevice)
            assert row.self_signing_key == seeds.public.self_signing
            await bob.restart()
            assert await asyncio.to_thread(bob.store.sender_devices.of, keys["curve25519"]) == row
            assert await asyncio.to_thread(bob.store.sender_devices.of, keys["ed25519"]) is None

    asyncio.run(scenario())


def test_a_device_without_its_owners_signature_proves_nothing(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            CrossSigned(server).changed(ALICE.user_id)
            await alice.round()
            server.device_keys[PHONE]["signatures"][ALICE.user_id] |= {f"ed25519:{n}": "AAAA" for n in range(9)}
            CrossSigned(server).changed(ALICE.user_id)
            await alice.round()
            await sends_anew(alice, bob, "one")
            assert bob.read == ["one"]
            assert bob.stored(SenderDevice) == []

    asyncio.run(scenario())
