"""Devices that claim keys of Bob's phone from the small homeserver, and write to it."""

from __future__ import annotations

from typing import Final

from client_pairs import ALICE, BOB, ROOM
from raw_devices import RawDevice
from small_homeserver import Json, SmallHomeserver

PHONE: Final = (BOB.user_id, BOB.device_id)
ALGORITHM: Final = "signed_curve25519"


def new_device(server: SmallHomeserver, name: str) -> tuple[RawDevice, str]:
    """A device that claims a key of Bob's. Returns the key's id, too."""
    device = RawDevice(ALICE.user_id, name)
    claimed = server._claim({BOB.user_id: {BOB.device_id: ALGORITHM}})
    return device, device.begin(server.device_keys[PHONE], claimed[BOB.user_id][BOB.device_id])


def send_room_key(server: SmallHomeserver, device: RawDevice) -> Json:
    content = device.room_key(ROOM)
    server._send_to_device(device.user, "m.room.encrypted", {BOB.user_id: {BOB.device_id: content}})
    return content


def write(server: SmallHomeserver, device: RawDevice, text: str) -> None:
    send_room_key(server, device)
    sender = (device.user, device.device_id)
    server._say(sender, ROOM, "m.room.encrypted", text, device.message(ROOM, text))


def offers(server: SmallHomeserver) -> list[Json]:
    """The fallback keys that Bob uploaded, in order."""
    uploads = server.asked("keys/upload", BOB.user_id)
    return [request.body["fallback_keys"] for request in uploads if "fallback_keys" in request.body]


def use_fallback_key(server: SmallHomeserver, name: str) -> RawDevice:
    """Somebody claims Bob's fallback key, and writes nothing yet."""
    kept, server.one_time_keys[PHONE] = server.one_time_keys[PHONE], {}
    device, _ = new_device(server, name)
    server.one_time_keys[PHONE] = kept
    return device
