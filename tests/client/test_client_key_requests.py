"""Room keys that one device asks another of the same user for, without a look-up on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from nio import (
    RoomKeyRequest,
    RoomKeyRequestCancellation,
    RoomKeyRequestResponse,
    RoomMessagesResponse,
    ToDeviceMessage,
)
from nio.crypto import OlmDevice
from nio.events import MegolmEvent

from client_pairs import ALICE, BOB, ROOM, Person, people, say_in_new_sessions
from cryptostore import Account, OutgoingKeyRequest
from cryptostore.nio.cache import LiveCache
from small_homeserver import SmallHomeserver

LAPTOP = Account(BOB.user_id, "BOBLAPTOP")
#: How much the caches hold where a test makes them small.
_CAPACITY = 5


class Devices:
    """Bob's phone, which has the key of a message, and his laptop, which came too late for it."""

    def __init__(self, server: SmallHomeserver, alice: Person, phone: Person, url: str) -> None:
        self.server, self.alice, self.phone = server, alice, phone
        self.laptop = Person(server, LAPTOP, url)
        self.asked: list[Any] = []

    async def meet(self, has_olm_session: bool) -> None:
        """Each knows the other's keys, and Alice, too, can send the laptop what comes from now on."""
        await self.laptop.start()
        for person in (self.laptop, self.phone, self.laptop, self.phone):
            await person.round()
        await self.alice.round()
        for person in [self.alice, self.phone] if has_olm_session else [self.alice]:
            await person.client.keys_claim({BOB.user_id: [LAPTOP.device_id]})
        self.alice.client.verify_device(device_of(self.alice, LAPTOP))
        self.laptop.client.verify_device(device_of(self.laptop, BOB))
        say_in_new_sessions(self.alice, [str(number) for number in range(2 * _CAPACITY)])
        for person in (self.laptop, self.phone):
            await person.round()

    async def restart(self) -> None:
        """New processes have nothing in memory."""
        await self.phone.restart()
        await self.laptop.restart()
        self.phone.client.add_to_device_callback(self.asked.append, (RoomKeyRequest, RoomKeyRequestCancellation))

    def message(self) -> MegolmEvent:
        """Alice's message."""
        return parsed(next(event for _, event in self.server.timeline[ROOM] if event["type"] == "m.room.encrypted"))

    async def ask(self) -> None:
        """The laptop asks for the message's key."""
        answer = await self.laptop.client.request_room_key(self.message())
        assert isinstance(answer, RoomKeyRequestResponse)
        # It asks all of Bob's devices, itself among them.
        await self.laptop.round()
        assert len(self.laptop.stored(OutgoingKeyRequest)) == 1

    async def receive(self) -> None:
        """The laptop gets the key and reads the message with it."""
        await self.phone.client.send_to_device_messages()
        await self.laptop.round()
        assert self.laptop.stored(OutgoingKeyRequest) == []
        response = RoomMessagesResponse(ROOM, [self.message()], "start")
        await self.laptop.client.receive_response(response)
        event: Any = response.chunk[0]
        assert event.body == "hello"

    def loop_reads(self) -> list[int]:
        """Of the phone and of the laptop."""
        return [person.client.statistics.loop_reads for person in (self.phone, self.laptop)]


def parsed(sent: dict[str, Any]) -> MegolmEvent:
    """An encrypted message as nio has it."""
    event = MegolmEvent.from_dict(sent | {"room_id": ROOM})
    assert isinstance(event, MegolmEvent)
    return event


@asynccontextmanager
async def two_devices(url: str, has_olm_session: bool = True) -> AsyncIterator[Devices]:
    async with people(url) as (server, alice, phone):
        await alice.say("hello")
        await phone.round()
        devices = Devices(server, alice, phone, url)
        try:
            await devices.meet(has_olm_session)
            yield devices
        finally:
            await devices.laptop.client.close()


def device_of(person: Person, account: Account) -> OlmDevice:
    """A device as this person's client knows it."""
    return person.store.load_device_keys()[account.user_id][account.device_id]


async def push_out_of_the_caches(person: Person) -> None:
    """This person's client handles more senders and sessions than its caches hold."""
    sent = [event for _, event in person.server.timeline[ROOM] if event["type"] == "m.room.encrypted"]
    from_strangers = [event | {"sender": f"@stranger{number}:small"} for number, event in enumerate(sent)]
    assert len(from_strangers) > _CAPACITY
    await person.client.receive_response(RoomMessagesResponse(ROOM, list(map(parsed, from_strangers)), "start"))


@pytest.fixture
def _small_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LiveCache.__init__, "__defaults__", (_CAPACITY,))


def test_a_key_is_asked_for_and_forwarded(url: str) -> None:
    async def scenario() -> None:
        async with two_devices(url) as devices:
            devices.phone.client.verify_device(device_of(devices.phone, LAPTOP))
            await devices.restart()
            await devices.ask()
            await devices.laptop.restart()
            await devices.phone.round()
            await devices.receive()
            assert devices.loop_reads() == [0, 0]

    asyncio.run(scenario())


@pytest.mark.usefixtures("_small_caches")
def test_a_key_is_forwarded_after_an_olm_session_was_begun(url: str) -> None:
    async def scenario() -> None:
        async with two_devices(url, has_olm_session=False) as devices:
            devices.phone.client.verify_device(device_of(devices.phone, LAPTOP))
            await devices.restart()
            await devices.ask()
            phone = devices.phone
            await phone.client.sync()
            await push_out_of_the_caches(phone)
            await phone.errands()
            await push_out_of_the_caches(phone)
            await devices.alice.say("something new")
            await phone.client.sync()
            await devices.receive()
            assert devices.loop_reads() == [0, 0]

    asyncio.run(scenario())


@pytest.mark.usefixtures("_small_caches")
def test_a_request_that_waited_for_the_owner_is_continued(url: str) -> None:
    async def scenario() -> None:
        async with two_devices(url) as devices:
            await devices.restart()
            await devices.ask()
            await devices.laptop.restart()
            client = devices.phone.client
            await client.sync()
            for _ in range(2):
                await push_out_of_the_caches(devices.phone)
                await devices.alice.say("something new")
                await client.sync()
            await push_out_of_the_caches(devices.phone)
            (request,) = devices.asked
            assert client.continue_key_share(request) is False
            client.verify_device(device_of(devices.phone, LAPTOP))
            assert client.continue_key_share(request) is True
            await devices.receive()
            assert devices.loop_reads() == [0, 0]

    asyncio.run(scenario())


def test_a_request_that_waited_for_the_owner_is_refused(url: str) -> None:
    async def scenario() -> None:
        async with two_devices(url) as devices:
            await devices.restart()
            await devices.ask()
            await devices.phone.round()
            (request,) = devices.asked
            assert devices.phone.client.cancel_key_share(request) is True
            assert devices.phone.client.cancel_key_share(request) is False
            assert devices.phone.client.outgoing_to_device_messages == []
            assert devices.loop_reads() == [0, 0]

    asyncio.run(scenario())


@pytest.mark.parametrize(("is_shown", "expected"), [(False, []), (True, [RoomKeyRequest, RoomKeyRequestCancellation])])
def test_a_request_is_taken_back(url: str, is_shown: bool, expected: list[type[Any]]) -> None:
    async def scenario() -> None:
        async with two_devices(url) as devices:
            await devices.restart()
            await devices.ask()
            if is_shown:
                await devices.phone.round()
            (request,) = devices.laptop.client.outgoing_key_requests.values()
            await devices.laptop.client.to_device(request.as_cancellation(LAPTOP.user_id, LAPTOP.device_id))
            await devices.phone.round()
            assert [type(event) for event in devices.asked] == expected
            assert devices.phone.client.get_active_key_requests(LAPTOP.user_id, LAPTOP.device_id) == []
            assert devices.loop_reads() == [0, 0]

    asyncio.run(scenario())


@pytest.mark.parametrize("action", ["request", "request_cancellation"])
def test_somebody_else_asks_and_gets_nothing(url: str, action: str) -> None:
    async def scenario() -> None:
        async with two_devices(url) as devices:
            await devices.restart()
            content = devices.message().as_key_request(BOB.user_id, ALICE.device_id).as_dict()["messages"]
            message = content[BOB.user_id]["*"] | {"action": action}
            await devices.alice.client.to_device(ToDeviceMessage("m.room_key_request", BOB.user_id, "*", message))
            await devices.phone.round()
            assert devices.asked == devices.phone.client.outgoing_to_device_messages == []
            assert devices.loop_reads() == [0, 0]

    asyncio.run(scenario())
