"""Messages that come again: a fallback key, unlike a one-time key, opens one more than once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from nio import RoomKeyEvent

from client_pairs import BOB, people
from cryptostore import InboundGroupSession, OlmAccount, OlmSession
from cryptostore.nio.bounds import OLM_SESSIONS
from fallback_devices import ALGORITHM, PHONE, new_device, send_room_key, write


@pytest.mark.parametrize("is_fallback", [False, True])
def test_a_message_that_comes_again_later_does_nothing(memory_url: str, is_fallback: bool) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            keys: list[Any] = []
            bob.client.add_to_device_callback(keys.append, RoomKeyEvent)
            if is_fallback:
                server.one_time_keys[PHONE].clear()
            device, _ = new_device(server, "NEW")
            content = send_room_key(server, device)
            await bob.round()
            await bob.round()
            before = bob.stored(OlmAccount)
            server._send_to_device(device.user, "m.room.encrypted", {BOB.user_id: {BOB.device_id: content}})
            await bob.round()
            assert len(keys) == 1
            assert bob.client.machine.wedged_devices == []
            assert bob.stored(OlmAccount) == before

    asyncio.run(scenario())


@pytest.mark.parametrize("is_fallback", [False, True])
def test_a_message_that_comes_again_after_its_session_was_forgotten_undoes_nothing(
    memory_url: str, is_fallback: bool
) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            keys: list[Any] = []
            bob.client.add_to_device_callback(keys.append, RoomKeyEvent)
            if is_fallback:
                server.one_time_keys[PHONE].clear()
            device, _ = new_device(server, "NEW")
            first = send_room_key(server, device)
            for _ in range(OLM_SESSIONS):
                claimed = server._claim({BOB.user_id: {BOB.device_id: ALGORITHM}})
                device.begin(server.device_keys[PHONE], claimed[BOB.user_id][BOB.device_id])
                send_room_key(server, device)
            await bob.round()
            await bob.round()
            (before,) = bob.stored(InboundGroupSession)
            count = len(keys)
            server._send_to_device(device.user, "m.room.encrypted", {BOB.user_id: {BOB.device_id: first}})
            await bob.round()
            assert len(keys) == count + is_fallback
            assert bob.stored(InboundGroupSession) == [before]
            assert len(bob.stored(OlmSession)) == OLM_SESSIONS
            write(server, device, "after")
            await bob.round()
            assert bob.read == ["after"]

    asyncio.run(scenario())
