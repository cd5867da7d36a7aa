"""Devices that an answer of the homeserver lacked, and that come back."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from aiohttp import web
from nio.crypto import OlmDevice
from nio.exceptions import OlmUnverifiedDeviceError

from client_pairs import ALICE, BOB, ROOM, Person, people
from cryptostore import Account, Changes, Device, DeviceTrust, open_backend
from cryptostore.nio import bounds
from cryptostore_contract.samples import KEY
from small_homeserver import Request, SmallHomeserver

PHONE = (BOB.user_id, BOB.device_id)


async def devices_changed(server: SmallHomeserver, alice: Person) -> None:
    """Alice hears that Bob's devices changed, and asks for them."""
    server.changed.append((server._advance(), BOB.user_id))
    await alice.round()


async def one_answer_without_bobs_devices(server: SmallHomeserver, alice: Person) -> None:
    def lacks_them(request: Request) -> web.Response | None:
        return web.json_response({"device_keys": {BOB.user_id: {}}}) if request.is_for("keys/query") else None

    server.faults.append(lacks_them)
    await devices_changed(server, alice)
    server.faults.remove(lacks_them)
    assert list(alice.client.device_store.active_user_devices(BOB.user_id)) == []


def phone_of_bob(alice: Person) -> OlmDevice:
    device: OlmDevice = alice.client.device_store[BOB.user_id][BOB.device_id]
    return device


@pytest.mark.parametrize("restarts", [False, True])
def test_a_device_that_one_answer_lacked_reads_what_is_sent_after_the_next(url: str, restarts: bool) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            await alice.say("one")
            await one_answer_without_bobs_devices(server, alice)
            await alice.say("not for Bob")
            if restarts:
                await alice.restart()
                await alice.client.sync()
            await devices_changed(server, alice)
            await alice.say("two")
            await bob.round()
            assert bob.read == ["one", "two"]
            assert [device.deleted for device in alice.stored(Device) if device.key == PHONE] == [False]

    asyncio.run(scenario())


def test_a_device_that_logged_out_and_in_again_with_the_same_keys_reads_again(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            keys, one_time_keys = server.device_keys[PHONE], dict(server.one_time_keys[PHONE])
            server.delete_device(PHONE)
            await alice.round()
            await alice.say("not for Bob")
            server.device_keys[PHONE], server.one_time_keys[PHONE] = keys, one_time_keys
            server.tokens[str(bob.client.access_token)] = PHONE
            await devices_changed(server, alice)
            await alice.say("for Bob")
            await bob.round()
            assert bob.read == ["for Bob"]

    asyncio.run(scenario())


@pytest.mark.parametrize("trust", [DeviceTrust.VERIFIED, DeviceTrust.IGNORED, DeviceTrust.BLACKLISTED])
def test_a_device_that_an_earlier_build_stored_as_deleted_is_back_with_what_was_decided(
    url: str, trust: DeviceTrust
) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            await alice.client.close()
            (row,) = [row for row in alice.stored(Device) if row.key == PHONE]
            with open_backend(url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
                store.apply(Changes([replace(row, deleted=True, trust=trust)]))
            alice.client = alice._make()
            await alice.start()
            await alice.client.sync()
            await devices_changed(server, alice)
            content = {"msgtype": "m.text", "body": "hello"}
            await alice.client.room_send(ROOM, "m.room.message", content)
            await bob.round()
            assert bob.read == ([] if trust is DeviceTrust.BLACKLISTED else ["hello"])
            assert phone_of_bob(alice).trust_state.name == trust.value
            assert [device.trust for device in alice.stored(Device) if device.key == PHONE] == [trust]

    asyncio.run(scenario())


async def bob_begins_anew(server: SmallHomeserver) -> Person:
    """Bob's phone logs in with an empty database."""
    anew = await Person(server, BOB, "memory://").start()
    await anew.round()
    return anew


def test_a_device_that_comes_back_with_another_key_is_a_new_one_that_nobody_verified(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, _bob):
            old = phone_of_bob(alice)
            alice.client.verify_device(old)
            server.delete_device(PHONE)
            await alice.round()
            anew = await bob_begins_anew(server)
            await alice.round()
            (new,) = alice.client.device_store.active_user_devices(BOB.user_id)
            assert new.ed25519 != old.ed25519
            assert not alice.client.machine.is_device_verified(new)
            for _ in ("before", "after a restart"):
                with pytest.raises(OlmUnverifiedDeviceError):
                    await alice.client.room_send(ROOM, "m.room.message", {"msgtype": "m.text", "body": "a secret"})
                await alice.restart()
                await alice.client.sync()
            assert server.asked("/send/") == []
            await alice.say("for whoever it is")
            await anew.round()
            assert anew.read == ["for whoever it is"]
            await anew.client.close()

    asyncio.run(scenario())


def test_a_device_that_was_never_absent_keeps_its_key(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, _bob):
            before = phone_of_bob(alice).ed25519
            del server.device_keys[PHONE]
            anew = await bob_begins_anew(server)
            await alice.round()
            assert [device.ed25519 for device in alice.client.device_store.active_user_devices(BOB.user_id)] == [before]
            await anew.client.close()

    asyncio.run(scenario())


def test_keys_with_a_false_signature_bring_no_device_back(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, _bob):
            before = phone_of_bob(alice)
            await one_answer_without_bobs_devices(server, alice)
            server.device_keys[PHONE] = server.device_keys[PHONE] | {"algorithms": ["another.than.was.signed"]}
            await devices_changed(server, alice)
            assert phone_of_bob(alice) is before
            assert [row.deleted for row in alice.stored(Device) if row.key == PHONE] == [True]

    asyncio.run(scenario())


def test_a_device_that_comes_back_keeps_its_place_among_those_that_are_kept(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            monkeypatch.setattr(bounds, "DEVICES", 1)
            await one_answer_without_bobs_devices(server, alice)
            phone = server.device_keys.pop(PHONE)
            tablet = Person(server, Account(BOB.user_id, "BOBTABLET"), "memory://")
            await tablet.start()
            await tablet.round()
            server.device_keys[PHONE] = phone
            await devices_changed(server, alice)
            await alice.say("for the phone")
            for person, read in ((bob, ["for the phone"]), (tablet, [])):
                await person.round()
                assert person.read == read
            assert [row.key for row in alice.stored(Device) if row.user_id == BOB.user_id] == [PHONE]
            await tablet.client.close()

    asyncio.run(scenario())
