"""Who gets room keys: what owners signed, what the program decided, and the policies of client and room together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from nio import RoomKeyRequest, RoomSendResponse
from nio.events import MegolmEvent
from nio.exceptions import OlmUnverifiedDeviceError

from client_pairs import ALICE, BOB, ROOM, Person, people
from cross_signed import PHONE, CrossSigned
from cryptostore import Account, Changes, ConfigurationError, InvalidRecord, OutboundGroupSession, Value
from cryptostore.nio import ProductionMatrixClient
from cryptostore.nio.trust.key_answers import Judged
from cryptostore.trust.cross_signing import MASTER
from cryptostore_contract.samples import KEY
from small_homeserver import Request, SmallHomeserver
from spoiling import put_rows, stored_rows

TABLET = (BOB.user_id, "BOBTABLET")


class Bob:
    """Bob's two devices, and what Alice, who writes, has to do with them."""

    def __init__(self, server: SmallHomeserver, alice: Person, phone: Person, url: str) -> None:
        self.server, self.alice, self.phone = server, alice, phone
        self.tablet = Person(server, Account(*TABLET), url)
        self.crossed = CrossSigned(server)

    async def start(self) -> None:
        """The tablet is there, and Alice knows it."""
        await self.tablet.start()
        await self.tablet.round()
        await self.alice.round()

    async def hears(self, text: str, ignore_unverified_devices: bool = True) -> list[str]:
        """Alice says something. Returns on which of the devices it can be read."""
        content = {"msgtype": "m.text", "body": text}
        sent = await self.alice.client.room_send(
            ROOM, "m.room.message", content, ignore_unverified_devices=ignore_unverified_devices
        )
        assert isinstance(sent, RoomSendResponse)
        assert self.alice.client.statistics.loop_reads == 0
        for person in (self.phone, self.tablet):
            await person.round()
        return [person.account.device_id for person in (self.phone, self.tablet) if text in person.read]

    def told(self) -> list[tuple[str, str]]:
        """Which devices were told that they get no key, with the code, in order."""
        requests = self.server.asked("sendToDevice/m.room_key.withheld", ALICE.user_id)
        return [
            (device_id, content["code"])
            for request in requests
            for device_id, content in request.body["messages"].get(BOB.user_id, {}).items()
        ]

    def verify(self) -> None:
        """Alice has verified Bob's present identity."""
        identity = self.alice.store.identities.of(BOB.user_id)
        assert identity is not None
        assert self.alice.store.identities.set_verified(BOB.user_id, identity.master_key)

    def device(self, device_id: str) -> Any:
        """As Alice knows it."""
        return self.alice.client.device_store[BOB.user_id][device_id]


@asynccontextmanager
async def bobs(url: str, **options: Any) -> AsyncIterator[Bob]:
    async with people(url, **options) as (server, alice, phone):
        bob = Bob(server, alice, phone, url)
        await bob.start()
        try:
            yield bob
        finally:
            await bob.tablet.client.close()


@pytest.mark.parametrize("is_restarted", [False, True])
def test_devices_that_their_owner_signed_get_keys_and_the_others_are_told(url: str, is_restarted: bool) -> None:
    async def scenario() -> None:
        async with bobs(url) as bob:
            bob.crossed.make_for(PHONE)
            await bob.alice.round()
            # Nobody has to be asked about a signed device.
            assert await bob.hears("one", ignore_unverified_devices=False) == [BOB.device_id]
            assert await bob.hears("two") == [BOB.device_id]
            assert bob.told() == [("BOBTABLET", "m.unverified")]
            assert bob.alice.client.machine.outbound_group_sessions[ROOM].users_shared_with == {PHONE}
            if is_restarted:
                await bob.alice.restart()
                await bob.alice.client.sync()
                assert await bob.hears("three") == [BOB.device_id]
                assert bob.alice.client.statistics.adopted_sessions == 1
                assert bob.told() == [("BOBTABLET", "m.unverified")]
            bob.crossed.sign(TABLET)
            await bob.alice.round()
            assert await bob.hears("four", ignore_unverified_devices=False) == [BOB.device_id, "BOBTABLET"]
            assert len(bob.told()) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("is_down", [False, True])
def test_a_device_whose_signature_is_gone_gets_no_further_key(url: str, is_down: bool) -> None:
    async def scenario() -> None:
        async with bobs(url) as bob:
            bob.crossed.make_for(PHONE)
            bob.crossed.sign(TABLET)
            await bob.alice.round()
            assert await bob.hears("for both") == [BOB.device_id, "BOBTABLET"]
            if is_down:
                await bob.alice.client.close()
                bob.crossed.unsign(TABLET)
                bob.alice.client = bob.alice._make()
                await bob.alice.start()
                await bob.alice.client.sync()
            else:
                bob.crossed.unsign(TABLET)
                await bob.alice.round()
            assert await bob.hears("for one") == [BOB.device_id]
            assert bob.told() == [("BOBTABLET", "m.unverified")]

    asyncio.run(scenario())


def test_a_key_that_went_out_while_a_signature_was_lost_is_never_used(url: str) -> None:
    async def scenario() -> None:
        async with bobs(url) as bob:
            bob.crossed.make_for(PHONE)
            bob.crossed.sign(TABLET)
            await bob.alice.round()
            signed = dict(bob.alice.store.identities.rows[BOB.user_id,].signed_devices)
            sent: list[Request] = []

            def lose_the_signature(request: Request) -> None:
                if request.is_for("sendToDevice/m.room.encrypted"):
                    sent.append(request)
                    answer = Judged(None, {**{each: str(key) for each, key in signed.items()}, "BOBTABLET": ""}, False)
                    bob.alice.store.identities.take_in(BOB.user_id, answer, lambda _: True)

            bob.server.faults.append(lose_the_signature)
            assert await bob.hears("one") == [BOB.device_id]
            assert len(sent) == 2

    asyncio.run(scenario())


def test_a_new_self_signing_key_makes_every_device_unsigned_until_it_signs_again(url: str) -> None:
    async def scenario() -> None:
        async with bobs(url) as bob:
            bob.crossed.make_for(PHONE)
            await bob.alice.round()
            assert await bob.hears("one") == [BOB.device_id]
            bob.crossed.make(BOB.user_id)
            await bob.alice.round()
            assert await bob.hears("two") == []
            bob.crossed.sign(PHONE)
            await bob.alice.round()
            # The identity is another one, which is told, but nobody had verified the first.
            assert await bob.hears("three") == [BOB.device_id]

    asyncio.run(scenario())


def test_without_an_identity_nios_own_rule_holds(url: str) -> None:
    async def scenario() -> None:
        async with bobs(url) as bob:
            with pytest.raises(OlmUnverifiedDeviceError):
                await bob.hears("one", ignore_unverified_devices=False)
            assert await bob.hears("two") == [BOB.device_id, "BOBTABLET"]
            # They are ignored from now on.
            assert await bob.hears("three", ignore_unverified_devices=False) == [BOB.device_id, "BOBTABLET"]
            assert bob.told() == []
            # That a device is ignored is no signature.
            bob.crossed.make(BOB.user_id)
            await bob.alice.round()
            assert await bob.hears("four") == []

    asyncio.run(scenario())


def test_all_devices_get_keys_where_the_policy_says_so(url: str) -> None:
    async def scenario() -> None:
        async with bobs(url, room_keys="all") as bob:
            bob.crossed.make_for(PHONE)
            await bob.alice.round()
            with pytest.raises(OlmUnverifiedDeviceError):
                await bob.hears("one", ignore_unverified_devices=False)
            assert await bob.hears("two") == [BOB.device_id, "BOBTABLET"]

    asyncio.run(scenario())


def test_only_verified_users_signed_devices_get_keys_where_the_policy_says_so(url: str) -> None:
    async def scenario() -> None:
        async with bobs(url, room_keys="verified") as bob:
            assert await bob.hears("without an identity") == []
            bob.crossed.make_for(PHONE)
            await bob.alice.round()
            assert await bob.hears("not verified") == []
            bob.verify()
            assert await bob.hears("verified", ignore_unverified_devices=False) == [BOB.device_id]
            assert bob.alice.client.withdraw_verification(BOB.user_id)
            assert await bob.hears("withdrawn") == []

    asyncio.run(scenario())


@pytest.mark.parametrize("policy", ["signed", "verified"])
def test_a_device_that_was_verified_by_hand_counts_as_signed_and_a_blacklisted_one_never(url: str, policy: str) -> None:
    async def scenario() -> None:
        async with bobs(url, room_keys=policy) as bob:
            bob.crossed.make_for(PHONE)
            await bob.alice.round()
            bob.verify()
            bob.alice.client.verify_device(bob.device("BOBTABLET"))
            bob.alice.client.blacklist_device(bob.device(BOB.device_id))
            assert await bob.hears("one", ignore_unverified_devices=False) == ["BOBTABLET"]
            assert bob.told() == [(BOB.device_id, "m.blacklisted")]

    asyncio.run(scenario())


@pytest.mark.parametrize("policy", ["all", "signed", "verified"])
@pytest.mark.parametrize("is_accepted", [False, True])
@pytest.mark.parametrize("by_hand", [False, True])
def test_a_verified_users_room_keys_stop_when_the_identity_changes_until_somebody_decides(
    url: str, policy: str, is_accepted: bool, by_hand: bool
) -> None:
    async def scenario() -> None:
        async with bobs(url, room_keys=policy) as bob:
            bob.crossed.make_for(PHONE)
            await bob.alice.round()
            bob.verify()
            if by_hand:
                # As a verification by emoji does.
                bob.alice.client.verify_device(bob.device(BOB.device_id))
            everyone = [BOB.device_id, "BOBTABLET"] if policy == "all" else [BOB.device_id]
            assert await bob.hears("one") == everyone
            bob.crossed.make_for(PHONE)
            await bob.alice.round()
            assert await bob.hears("two") == []
            await bob.alice.restart()
            await bob.alice.client.sync()
            assert await bob.hears("three") == []
            if is_accepted:
                assert bob.alice.client.accept_identity(BOB.user_id)
                assert await bob.hears("four") == ([] if policy == "verified" else everyone)
            else:
                bob.verify()
                assert await bob.hears("four") == everyone

    asyncio.run(scenario())


def test_own_devices_that_are_not_signed_get_no_key(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, _bob):
            crossed = CrossSigned(server)
            laptop = Person(server, Account(ALICE.user_id, "ALICELAPTOP"), url)
            await laptop.start()
            await laptop.round()
            crossed.make(ALICE.user_id)
            await alice.round()
            await alice.say("one")
            await laptop.round()
            assert laptop.read == []
            crossed.sign((ALICE.user_id, "ALICELAPTOP"))
            await alice.round()
            await alice.say("two")
            await laptop.round()
            assert laptop.read == ["two"]
            await laptop.client.close()

    asyncio.run(scenario())


def test_a_room_has_a_policy_of_its_own_over_restarts(url: str) -> None:
    async def scenario() -> None:
        async with bobs(url) as bob:
            bob.crossed.make_for(PHONE)
            await bob.alice.round()
            client = bob.alice.client
            assert client.room_keys_policy(ROOM) == "signed"
            assert await bob.hears("one") == [BOB.device_id]
            client.set_room_keys_policy(ROOM, "verified")
            assert await bob.hears("two") == []
            await bob.alice.come_back_after_a_crash()
            await bob.alice.client.sync()
            assert bob.alice.client.room_keys_policy(ROOM) == "verified"
            assert await bob.hears("three") == []
            bob.alice.client.set_room_keys_policy(ROOM, "all")
            assert await bob.hears("four") == [BOB.device_id, "BOBTABLET"]
            bob.alice.client.set_room_keys_policy(ROOM, None)
            assert await bob.hears("five") == [BOB.device_id]
            await bob.alice.restart()
            assert bob.alice.client.room_keys_policy(ROOM) == "signed"
            assert bob.alice.stored(OutboundGroupSession) != []
            with pytest.raises(ConfigurationError, match="'some' is none of 'all', 'signed', 'verified'"):
                bob.alice.client.set_room_keys_policy(ROOM, "some")
            with pytest.raises(InvalidRecord):
                bob.alice.client.set_room_keys_policy("", "all")

    asyncio.run(scenario())


@pytest.mark.parametrize("value", [b"a policy of a later program", None])
def test_a_rooms_policy_that_cannot_be_read_is_the_strictest(url: str, value: bytes | None) -> None:
    async def scenario() -> None:
        async with bobs(url) as bob:
            bob.alice.client.set_room_keys_policy(ROOM, "all")
            if value is not None:
                bob.alice.store.storage.write(Changes([Value("room keys policy", ROOM, value)]))
            await bob.alice.client.close()
            if value is None:
                (row,) = [row for row in stored_rows(url, ALICE, Value) if b"room keys policy" in row.key]
                put_rows(url, ALICE, row._replace(value=row.value[:-1] + bytes([row.value[-1] ^ 1])))
            bob.alice.client = bob.alice._make()
            await bob.alice.start()
            assert bob.alice.client.room_keys_policy(ROOM) == "verified"
            assert bob.alice.client.room_keys_policy("!another:small") == "signed"

    asyncio.run(scenario())


@pytest.mark.parametrize("argument", ["room_keys", "accept"])
def test_a_policy_that_there_is_not_is_refused(argument: str) -> None:
    wrong: Any = {argument: "some"}
    with pytest.raises(ConfigurationError, match=f"{argument}='some' is none of"):
        ProductionMatrixClient("https://small", "@a:small", store="memory://", pickle_key=KEY, **wrong)


@pytest.mark.parametrize("is_signed", [True, False])
def test_a_request_for_a_key_is_answered_for_own_signed_devices_alone(url: str, is_signed: bool) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            crossed = CrossSigned(server)
            asked: list[Any] = []
            bob.client.add_to_device_callback(asked.append, RoomKeyRequest)
            await alice.say("before the tablet")
            await bob.round()
            assert bob.read == ["before the tablet"]
            seeds = crossed.make(BOB.user_id)
            bob.store.secrets.put(MASTER, seeds.master)
            tablet = Person(server, Account(*TABLET), url)
            await tablet.start()
            for person in (tablet, bob):
                await person.round()
            if is_signed:
                crossed.sign(TABLET)
            crossed.sign(PHONE)
            for person in (tablet, bob):
                await person.round()
            event = next(each for _, each in server.timeline[ROOM] if each["type"] == "m.room.encrypted")
            tablet.store.secrets.put(MASTER, seeds.master)
            crossed.changed(BOB.user_id)
            await tablet.round()
            await tablet.client.request_room_key(_parsed(event))
            # The first round begins an Olm session.
            await bob.round()
            await alice.say("something new")
            for person in (bob, tablet):
                await person.round()
            assert (tablet.client.outgoing_key_requests == {}) is is_signed
            assert len(asked) == (0 if is_signed else 1)
            await tablet.client.close()

    asyncio.run(scenario())


def _parsed(sent: dict[str, Any]) -> Any:
    return MegolmEvent.from_dict(sent | {"room_id": ROOM})
