"""nio's own verifications are off: they answer nothing, and say what takes their place. Their events still come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from nio import KeyVerificationEvent, LocalProtocolError
from nio.crypto import OlmDevice

from client_pairs import ALICE, BOB, Person, people
from cryptostore.nio import ProductionMatrixClient
from small_homeserver import Json

START: Json = {
    "from_device": ALICE.device_id,
    "transaction_id": "transaction",
    "method": "m.sas.v1",
    "key_agreement_protocols": ["curve25519-hkdf-sha256"],
    "hashes": ["sha256"],
    "message_authentication_codes": ["hkdf-hmac-sha256"],
    "short_authentication_string": ["emoji", "decimal"],
}


def device_of(person: Person, user_id: str) -> OlmDevice:
    devices: list[OlmDevice] = list(person.client.device_store.active_user_devices(user_id))
    return devices[0]


@pytest.mark.parametrize(
    "call",
    [
        lambda client, device: client.start_key_verification(device),
        lambda client, _: client.accept_key_verification("transaction"),
        lambda client, _: client.confirm_short_auth_string("transaction"),
        lambda client, _: client.cancel_key_verification("transaction"),
    ],
    ids=["start", "accept", "confirm", "cancel"],
)
def test_nios_own_methods_name_what_takes_their_place(
    memory_url: str, call: Callable[[ProductionMatrixClient, OlmDevice], Awaitable[Any]]
) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, _):
            before = len(server.requests)
            with pytest.raises(LocalProtocolError, match=r"on_verification.*request_verification"):
                await call(alice.client, device_of(alice, BOB.user_id))
            assert len(server.requests) == before

    asyncio.run(scenario())


def test_nio_answers_nothing_and_its_events_still_come(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _, bob):
            came: list[Any] = []
            bob.client.add_to_device_callback(came.append, KeyVerificationEvent)
            bob.client.on_verification(lambda _: None)
            key = {"transaction_id": "transaction", "key": "A" * 43}
            macs = {"transaction_id": "transaction", "mac": {"ed25519:ALICEPHONE": "mac"}, "keys": "mac"}
            for kind, content in (("start", START), ("key", key), ("mac", macs)):
                message = {BOB.user_id: {BOB.device_id: content}}
                server._send_to_device(ALICE.user_id, f"m.key.verification.{kind}", message)
            await bob.client.sync()
            assert [type(event).__name__ for event in came] == [
                "KeyVerificationStart",
                "KeyVerificationKey",
                "KeyVerificationMac",
            ]
            assert not bob.client.key_verifications
            assert not bob.client.outgoing_to_device_messages
            assert bob.client.statistics.poisoned_events == 0

    asyncio.run(scenario())
