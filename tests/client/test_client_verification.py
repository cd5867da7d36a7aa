"""Interactive verification, also with a database that is away when its result has to be saved."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from nio import ToDeviceResponse
from nio.crypto import OlmDevice

from client_pairs import ALICE, BOB, Person, lockable, locked, people
from cryptostore import BackendUnavailable, Device


def device_of(person: Person, user_id: str) -> OlmDevice:
    devices: list[OlmDevice] = list(person.client.device_store.active_user_devices(user_id))
    return devices[0]


def stored_trust(person: Person, user_id: str) -> list[str]:
    return [row.trust.value for row in person.stored(Device) if row.user_id == user_id]


def test_a_verification_whose_result_cannot_be_saved_goes_on_later(memory_url: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with people(lockable(tmp_path), memory_url) as (_, alice, bob):
            assert isinstance(
                await alice.client.start_key_verification(device_of(alice, BOB.user_id)), ToDeviceResponse
            )
            await bob.client.sync()
            ((transaction, bobs),) = bob.client.key_verifications.items()
            await bob.client.accept_key_verification(transaction)
            # Alice's key, then Bob's.
            for person in (alice, bob, alice):
                await person.round()
            alices = alice.client.key_verifications[transaction]
            assert alices.get_emoji() == bobs.get_emoji()
            await bob.client.confirm_short_auth_string(transaction)
            await alice.client.sync()
            with locked(tmp_path):
                with pytest.raises(BackendUnavailable):
                    # Bob has confirmed, so this verifies his device.
                    await alice.client.confirm_short_auth_string(transaction)
                assert stored_trust(alice, BOB.user_id) != ["verified"]
            assert isinstance(await alice.client.confirm_short_auth_string(transaction), ToDeviceResponse)
            assert stored_trust(alice, BOB.user_id) == ["verified"]
            await bob.round()
            await bob.client.flush()
            assert stored_trust(bob, ALICE.user_id) == ["verified"]
            for person, other in ((alice, BOB), (bob, ALICE)):
                await person.come_back_after_a_crash()
                assert device_of(person, other.user_id).verified

    asyncio.run(scenario())
