"""The objects that nio hands to its store."""

from __future__ import annotations

import random
from typing import TypeAlias

from nio.crypto import InboundGroupSession, OlmDevice, OutboundGroupSession

from workers.made_keys import device_keys, key_id, room_ids

Devices: TypeAlias = dict[str, dict[str, OlmDevice]]


def sessions(count: int) -> list[InboundGroupSession]:
    """New room keys, each of another sender."""
    numbers, rooms = random.Random(), room_ids()
    return [
        InboundGroupSession(OutboundGroupSession().session_key, key_id(numbers), key_id(numbers), numbers.choice(rooms))
        for _ in range(count)
    ]


def devices(count: int) -> Devices:
    """By user id and device id."""
    by_user: Devices = {}
    for user_id, device_id, ed25519, curve25519 in device_keys(count):
        keys = {"ed25519": ed25519, "curve25519": curve25519}
        by_user.setdefault(user_id, {})[device_id] = OlmDevice(user_id, device_id, keys)
    return by_user
