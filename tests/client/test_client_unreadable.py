"""Damaged rows under a client: no stranger reads more than before, and everything else goes on."""

from __future__ import annotations

import asyncio

import pytest

from client_pairs import ALICE, BOB, ROOM, people
from cryptostore import (
    Device,
    EncryptedRoom,
    OlmMessage,
    OutboundGroupSession,
    ReplayPage,
    SharedPart,
    SyncToken,
    TrackedUser,
    UnreadableRecord,
)
from cryptostore.nio.client.handled import HandledMessages
from spoiling import spoil, stored_rows


def test_a_damaged_row_undoes_no_blacklisting(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (_server, alice, bob):
            await alice.say("one")
            await bob.round()
            (device,) = alice.client.device_store.active_user_devices(BOB.user_id)
            alice.client.blacklist_device(device)
            await alice.client.close()
            damaged = spoil(url, ALICE, Device)
            await alice.restart()
            # Whatever is asked about Bob's devices, the answer is not believed.
            alice.client.machine.add_changed_users({BOB.user_id})
            await alice.round()
            await alice.round()
            assert alice.read == ["one"]
            await alice.say("two")
            await bob.round()
            assert bob.read == ["one"]
            assert stored_rows(url, ALICE, Device) == damaged
            alice.client.unblacklist_device(alice.client.device_store[BOB.user_id][BOB.device_id])
            await alice.say("three")
            await bob.round()
            assert bob.read == ["one", "three"]

    asyncio.run(scenario())


def test_a_room_whose_record_is_damaged_is_encrypted(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (_server, alice, _bob):
            await alice.client.close()
            spoil(memory_url, ALICE, EncryptedRoom)
            await alice.restart()
            assert alice.client.encrypted_rooms == {ROOM}
            await alice.client.sync()
            assert len(stored_rows(memory_url, ALICE, EncryptedRoom)) == 1

    asyncio.run(scenario())


def test_a_message_whose_page_is_damaged_is_not_read_again(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (_server, alice, bob):
            await alice.say("one")
            await bob.round()
            await bob.client.close()
            spoil(memory_url, BOB, ReplayPage)
            await bob.restart()
            await alice.say("two")
            await bob.round()
            assert bob.read == ["one"]
            assert bob.client.statistics.replays == 1
            # A new session has pages of its own.
            alice.client.invalidate_outbound_session(ROOM)
            await alice.say("three")
            await bob.round()
            assert bob.read == ["one", "three"]

    asyncio.run(scenario())


@pytest.mark.parametrize("sender_key", ["", "\0", "\ud800", "k" * 256], ids=["empty", "NUL", "surrogate", "long"])
def test_a_ciphertext_of_an_odd_sender_stays_handled_until_its_sync_is(memory_url: str, sender_key: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (_server, _alice, bob):
            keys = [HandledMessages.key(sender_key, text) for text in ("ciphertext", "\ud800")]
            for key in keys:
                bob.store.handled.add(key)
            await bob.restart()
            assert all(key in bob.store.handled for key in keys)
            assert HandledMessages.key(sender_key, "another") not in bob.store.handled
            bob.store.complete_sync("s2")
            await bob.restart()
            assert not any(key in bob.store.handled for key in keys)

    asyncio.run(scenario())


@pytest.mark.parametrize("token", ["s\0", "s\ud800", "x" * 65_537], ids=["NUL", "surrogate", "long"])
def test_a_sync_whose_token_is_odd_is_not_handled_twice(memory_url: str, token: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (_server, _alice, bob):
            before, key = bob.store.load_sync_token(), HandledMessages.key("curve", "ciphertext")
            bob.store.handled.add(key)
            bob.store.complete_sync(token)
            await bob.restart()
            # What the token covers is forgotten with it; without it, it will come again.
            is_kept = len(token) < 100
            assert bob.store.load_sync_token() == (token if is_kept else before)
            assert (key in bob.store.handled) is not is_kept
            assert bob.store._is_tracking_current(bob.store.load_sync_token())

    asyncio.run(scenario())


def test_an_encrypted_room_with_an_odd_id_stays_encrypted(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (_server, _alice, bob):
            odd = "!" + "x" * 300
            for _ in range(2):
                bob.store.save_encrypted_rooms({odd})
            await bob.restart()
            assert odd in bob.client.encrypted_rooms
            assert ROOM in bob.client.encrypted_rooms
            assert len(bob.stored(EncryptedRoom)) == 2

    asyncio.run(scenario())


def test_a_ciphertext_whose_record_is_damaged_counts_as_handled(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (_server, _alice, bob):
            key = HandledMessages.key("curve", "ciphertext")
            bob.store.handled.add(key)
            await bob.client.close()
            spoil(memory_url, BOB, OlmMessage)
            await bob.restart()
            assert key in bob.store.handled

    asyncio.run(scenario())


def test_a_sync_token_that_is_damaged_is_an_error(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, _bob):
            await alice.client.close()
            spoil(memory_url, ALICE, SyncToken)
            asked = len(server.requests)
            with pytest.raises(UnreadableRecord, match="the sync_token of"):
                await alice.restart()
            assert len(server.requests) == asked

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", [TrackedUser, OutboundGroupSession, SharedPart])
def test_what_can_be_had_again_is(url: str, kind: type[TrackedUser | OutboundGroupSession | SharedPart]) -> None:
    async def scenario() -> None:
        async with people(url) as (_server, alice, bob):
            await alice.say("one")
            await alice.client.close()
            spoil(url, ALICE, kind)
            await alice.restart()
            await alice.round()
            sent = await alice.say("two")
            assert sent
            await bob.round()
            assert bob.read == ["one", "two"]

    asyncio.run(scenario())
