"""Olm messages of types that nio does not know reach the part that does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from client_pairs import ALICE, BOB, Person, people
from cryptostore.nio.trust.olm_payloads import OlmPayload
from small_homeserver import SmallHomeserver

SECRET = {"secret": "c2VjcmV0"}


async def sends(server: SmallHomeserver, alice: Person, kind: str, content: dict[str, Any]) -> None:
    """Alice sends Bob's phone an Olm message."""
    machine = alice.client.machine
    if machine.get_missing_sessions([BOB.user_id]):
        await alice.client.keys_claim({BOB.user_id: [BOB.device_id]})
    device = machine.device_store[BOB.user_id][BOB.device_id]
    message = machine._olm_encrypt(machine.session_store.get(device.curve25519), device, kind, content)
    server._send_to_device(ALICE.user_id, "m.room.encrypted", {BOB.user_id: {BOB.device_id: message}})


def test_a_payload_reaches_the_handler_of_its_type_once(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            got: list[OlmPayload] = []
            bob.client._session.olm_payloads.on("m.secret.send", got.append)
            await sends(server, alice, "m.secret.send", SECRET)
            await bob.round()
            await bob.round()
            keys = alice.client.machine.account.identity_keys
            assert got == [
                OlmPayload(ALICE.user_id, keys["curve25519"], keys["ed25519"], "m.secret.send", SECRET),
            ]
            assert SECRET["secret"] not in repr(got)

    asyncio.run(scenario())


def test_a_payload_of_an_unknown_type_or_whose_handler_raises_stops_nothing(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):

            def refuse(_payload: OlmPayload) -> None:
                raise ValueError(SECRET["secret"])

            bob.client._session.olm_payloads.on("org.example.refused", refuse)
            await sends(server, alice, "org.example.refused", SECRET)
            await sends(server, alice, "org.example.unknown", SECRET)
            await alice.say("after it")
            await bob.round()
            assert bob.read == ["after it"]
            assert "unknown type org.example.unknown" in caplog.text
            assert SECRET["secret"] not in caplog.text

    asyncio.run(scenario())
