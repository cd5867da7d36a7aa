"""`ProductionMatrixClient` of a checkout, without a homeserver."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, NamedTuple

from nio import AsyncClientConfig, MatrixRoom, MegolmEvent
from nio.crypto import InboundGroupSession, Olm, OutboundGroupSession

from cryptostore import open_backend
from cryptostore.nio import ProductionMatrixClient
from workers.live_keys import sessions
from workers.made_keys import DEVICE, PASSPHRASE, PICKLE_KEY, USER, device_keys, key_id, room_ids
from workers.sizes import stored_bytes
from workers.timing import Timings

#: Where no homeserver is, since nothing is sent to it.
_HOMESERVER: Final = "http://localhost"
_FLUSHED_AT_ONCE: Final = 1_000
#: Seconds between two looks at whether the event loop is free.
_TICK: Final = 0.001

_GROUP_ALGORITHM: Final = "m.megolm.v1.aes-sha2"


def _client(database: Mapping[str, str], pickle_key: str = PICKLE_KEY) -> ProductionMatrixClient:
    config = AsyncClientConfig(max_timeouts=0)
    url = database["url"]
    # No flush but those that are measured.
    return ProductionMatrixClient(
        _HOMESERVER, USER, DEVICE, store=url, pickle_key=pickle_key, config=config, flush_interval=3600
    )


@asynccontextmanager
async def opened(database: Mapping[str, str]) -> AsyncIterator[ProductionMatrixClient]:
    """A client with this database."""
    async with _client(database) as client:
        await client.open()
        await client.flush()
        yield client


def machine_of(client: ProductionMatrixClient) -> Olm:
    """The client's encryption machine."""
    machine = client.olm
    assert machine is not None, "the client is open"
    return machine


def _run(measurement: Coroutine[Any, Any, Timings], **more: Any) -> dict[str, Any]:
    return asyncio.run(measurement).told(**more)


def open_account(database: Mapping[str, str], pickle_key: str = PICKLE_KEY) -> dict[str, Any]:
    """Open a client, its connections to the database included."""
    # What Python imports on the way is not part of it.
    open_backend(database["url"]).close()
    return _run(_open(_client(database, pickle_key)))


async def _open(client: ProductionMatrixClient) -> Timings:
    timings = Timings()
    with timings.all_of(""):
        await client.open()
    await client.close()
    return timings


def messages(database: Mapping[str, str], rooms: int, devices: int, count: int) -> dict[str, Any]:
    """Encrypt a message and flush, in a client that has so many rooms, in one of them so many devices."""
    return _run(_messages(database, rooms, devices, count))


async def _messages(database: Mapping[str, str], rooms: int, devices: int, count: int) -> Timings:
    timings = Timings()
    async with opened(database) as client:
        room_id = await _share_keys(client, room_ids(rooms), devices)
        before = client.statistics.flushes
        began = time.monotonic()
        seconds = [await _timed_message(client, room_id, number) for number in range(count)]
        if client.statistics.flushes - before != count:
            raise RuntimeError("not every message was flushed")
        timings.seconds[""] = sorted(seconds)[count // 2]
        timings.spans[""] = (began, time.monotonic(), count)
    return timings


async def _timed_message(client: ProductionMatrixClient, room_id: str, number: int) -> float:
    started = time.perf_counter()
    client.encrypt(room_id, "m.room.message", {"msgtype": "m.text", "body": f"message {number}"})
    await client.flush()
    return time.perf_counter() - started


async def _share_keys(client: ProductionMatrixClient, room_ids: list[str], devices: int) -> str:
    """A session for each room, as it is after its key was sent. Returns the room with the devices."""
    machine = machine_of(client)
    for room_id in room_ids:
        client.rooms[room_id] = room = MatrixRoom(room_id, USER, encrypted=True)
        room.members_synced = True
        machine.create_outbound_group_session(room_id)
        machine.outbound_group_sessions[room_id].shared = True
    shared_with = machine.outbound_group_sessions[room_ids[0]].users_shared_with
    shared_with.update((user_id, device_id) for user_id, device_id, *_ in device_keys(devices))
    for room_id in room_ids:
        client.encrypt(room_id, "m.room.message", {"msgtype": "m.text", "body": "the first"})
    await client.flush()
    return room_ids[0]


def export_file(file: str, count: int) -> dict[str, Any]:
    """Write a file of exported room keys, as nio does."""
    # Few rounds: what nio's Python takes for them is no property of a store.
    Olm.export_keys_static(sessions(count), file, PASSPHRASE, 1_000)
    return {}


def import_keys(database: Mapping[str, str], file: str, count: int) -> dict[str, Any]:
    """Import room keys, and see for how long other tasks had to wait."""
    return _run(_import_keys(database, file, count))


async def _import_keys(database: Mapping[str, str], file: str, count: int) -> Timings:
    timings = Timings()
    async with opened(database) as client:
        with _watched_loop() as holds, timings.all_of("a key", count):
            await client.import_keys(file, PASSPHRASE)
            await client.flush()
            # For the last hold to be seen.
            await asyncio.sleep(2 * _TICK)
    timings.seconds["longest hold of the event loop"] = max(holds)
    return timings


@contextmanager
def _watched_loop() -> Iterator[list[float]]:
    holds: list[float] = []
    watcher = asyncio.create_task(_watch(holds))
    yield holds
    watcher.cancel()


async def _watch(holds: list[float]) -> None:
    while True:
        started = time.perf_counter()
        await asyncio.sleep(_TICK)
        holds.append(time.perf_counter() - started - _TICK)


class Sender(NamedTuple):
    """Somebody's Megolm session, and who has it."""

    session: OutboundGroupSession
    room_id: str
    sender_key: str
    signing_key: str


def replays(database: Mapping[str, str], senders: int, each: int) -> dict[str, Any]:
    """Read so many messages of each sender. Tells by how many bytes a message the database has grown."""
    made = [
        Sender(shared_session(), room_id, key_id(random.Random()), key_id(random.Random()))
        for room_id in random.choices(room_ids(), k=senders)
    ]
    asyncio.run(_save(database, made))
    before = stored_bytes(database)
    asyncio.run(_read(database, made, each))
    grown = stored_bytes(database) - before
    return {"values": {"": grown / (senders * each)}, "spans": {}}


def shared_session() -> OutboundGroupSession:
    """Somebody's session, ready for messages."""
    session = OutboundGroupSession()
    session.mark_as_shared()
    return session


async def _save(database: Mapping[str, str], senders: list[Sender]) -> None:
    async with opened(database) as client:
        save_sessions(client, senders)
        await client.flush()


def save_sessions(client: ProductionMatrixClient, senders: list[Sender]) -> None:
    """Let the client have the keys of these sessions, as if they came."""
    store = client.store
    assert store is not None, "the client is open"
    for session, room_id, sender_key, signing_key in senders:
        store.save_inbound_group_session(InboundGroupSession(session.session_key, signing_key, sender_key, room_id))


async def _read(database: Mapping[str, str], senders: list[Sender], each: int) -> None:
    async with opened(database) as client:
        read = 0
        for sender in senders:
            for _ in range(each):
                read_message(client, sender)
                read += 1
                if read % _FLUSHED_AT_ONCE == 0:
                    await client.flush()
        await client.flush()


def read_message(client: ProductionMatrixClient, sender: Sender) -> None:
    """Let the client decrypt the next message of a session."""
    machine_of(client).decrypt_megolm_event(_message(sender), sender.room_id)


def _message(sender: Sender) -> MegolmEvent:
    content = {"type": "m.room.message", "room_id": sender.room_id, "content": {"msgtype": "m.text", "body": "hello"}}
    encrypted = {
        "algorithm": _GROUP_ALGORITHM,
        "ciphertext": sender.session.encrypt(json.dumps(content)),
        "device_id": "SENDER",
        "sender_key": sender.sender_key,
        "session_id": sender.session.id,
    }
    event = MegolmEvent.from_dict(
        {
            "type": "m.room.encrypted",
            "sender": "@sender:example.org",
            # As in rooms of version 4 and later.
            "event_id": f"${key_id(random.Random()).translate(str.maketrans('+/', '-_'))}",
            "origin_server_ts": int(time.time() * 1000),
            "content": encrypted,
        }
    )
    assert isinstance(event, MegolmEvent), event
    return event
