"""The event loop is never held by the database."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from nio import Response, RoomContextResponse, RoomGetEventResponse, RoomMessagesResponse, RoomSendResponse
from nio.crypto import Olm, OlmAccount
from nio.events import MegolmEvent

from client_pairs import BOB, ROOM, people, say_in_new_sessions
from cryptostore.nio.cache import LiveCache
from cryptostore.store.memory import MemoryHandle
from small_homeserver import SmallHomeserver

_DELAY = 0.2


class SlowDatabase:
    """Every call takes 0.2 s, and is written down with its thread."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def wait(self) -> None:
        self.threads.append(threading.get_ident())
        time.sleep(_DELAY)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowDatabase:
    """Delays on a real backend: nothing else makes a fast database slow."""
    database = SlowDatabase()
    for name in ("get", "ranges", "page", "commit"):
        call = getattr(MemoryHandle, name)

        def delayed(self: MemoryHandle, *args: Any, call: Any = call) -> Any:
            database.wait()
            return call(self, *args)

        monkeypatch.setattr(MemoryHandle, name, delayed)
    return database


class Heartbeat:
    """The longest time for which the loop did nothing else."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def beat(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            self.longest = max(self.longest, time.monotonic() - before)


def add_devices(server: SmallHomeserver, user_id: str, count: int) -> None:
    """Devices of a user's that somebody could send keys to."""
    for number in range(count):
        device_id = f"DEVICE{number}"
        machine = Olm.__new__(Olm)
        machine.account, machine.user_id, machine.device_id = OlmAccount(), user_id, device_id
        machine.uploaded_key_count = 49
        keys = machine.share_keys()
        server.device_keys[user_id, device_id] = keys["device_keys"]
        server.one_time_keys[user_id, device_id] = dict(list(keys["one_time_keys"].items())[:1])
    server.changed.append((server._advance(), user_id))


def test_a_first_send_to_many_devices(memory_url: str, slow: SlowDatabase) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            add_devices(server, BOB.user_id, 1_000)
            heartbeat = Heartbeat()
            beating = asyncio.create_task(heartbeat.beat())
            slow.threads.clear()
            await alice.round()
            sent = await alice.client.room_send(
                ROOM, "m.room.message", {"msgtype": "m.text", "body": "hello"}, ignore_unverified_devices=True
            )
            assert isinstance(sent, RoomSendResponse)
            beating.cancel()
            assert threading.get_ident() not in slow.threads
            assert slow.threads
            assert alice.client.statistics.loop_reads == 0
            assert len(alice.client.machine.outbound_group_sessions[ROOM].users_shared_with) == 1_001
            await bob.round()
            assert bob.read == ["hello"]

    asyncio.run(scenario())


def test_a_sync_with_many_room_keys(memory_url: str, slow: SlowDatabase) -> None:
    async def scenario() -> None:
        async with people(memory_url, "memory://") as (server, alice, bob):
            server.page_size = 1_000
            await alice.say("first")
            await bob.round()
            say_in_new_sessions(alice, [str(number) for number in range(500)])
            heartbeat = Heartbeat()
            beating = asyncio.create_task(heartbeat.beat())
            slow.threads.clear()
            await bob.client.sync()
            beating.cancel()
            assert bob.read == ["first", *map(str, range(500))]
            assert threading.get_ident() not in slow.threads
            assert bob.client.statistics.loop_reads == 0

    asyncio.run(scenario())


def test_a_room_of_more_users_than_the_caches_hold(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(LiveCache.__init__, "__defaults__", (5,))
        async with people(memory_url) as (server, alice, bob):
            for number in range(20):
                user = f"@user{number}:small"
                server.join(ROOM, user)
                add_devices(server, user, 1)
            await alice.round()
            await alice.say("hello")
            assert len(alice.client.machine.outbound_group_sessions[ROOM].users_shared_with) == 21
            assert alice.client.statistics.loop_reads == 0
            await alice.restart()
            await alice.round()
            await alice.say("again")
            assert alice.client.statistics.adopted_sessions == 1
            assert alice.client.statistics.loop_reads == 0
            alice.client.machine.add_changed_users(set(alice.client.rooms[ROOM].users))
            await alice.client.keys_query()
            assert alice.client.statistics.loop_reads == 0
            await bob.round()
            assert bob.read == ["hello", "again"]

    asyncio.run(scenario())


def messages(event: MegolmEvent) -> Response:
    return RoomMessagesResponse(ROOM, [event], "start")


def context(event: MegolmEvent) -> Response:
    return RoomContextResponse(ROOM, "start", "end", event, [], [], [])


def alone(event: MegolmEvent) -> Response:
    response = RoomGetEventResponse()
    response.event = event
    return response


@pytest.mark.parametrize("answer", [messages, context, alone])
def test_what_is_asked_for_beside_syncs(memory_url: str, answer: Callable[[MegolmEvent], Response]) -> None:
    async def scenario() -> None:
        async with people(memory_url, memory_url) as (server, alice, bob):
            await alice.say("hello")
            await bob.round()
            # A new process has neither the room key nor its sender's devices in memory.
            await bob.restart()
            sent = [each for _, each in server.timeline[ROOM] if each["type"] == "m.room.encrypted"]
            event = MegolmEvent.from_dict(sent[-1] | {"room_id": ROOM})
            assert isinstance(event, MegolmEvent)
            response: Any = answer(event)
            await bob.client.receive_response(response)
            read: Any = response.chunk[0] if isinstance(response, RoomMessagesResponse) else response.event
            assert read.body == "hello"
            assert bob.client.statistics.loop_reads == 0

    asyncio.run(scenario())


def test_the_counter_counts(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (_, alice, _bob):
            alice.store.load_device_keys()["@stranger:small"]
            assert alice.client.statistics.loop_reads == 1

    asyncio.run(scenario())
