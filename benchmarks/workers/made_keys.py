"""Keys to store: real Megolm sessions, and identifiers that look as those of a homeserver do."""

from __future__ import annotations

import base64
import random
import string
from collections.abc import Iterator
from typing import Final

USER: Final = "@bench:example.org"
DEVICE: Final = "BENCHMARKS"
PICKLE_KEY: Final = "a passphrase that only these measurements use"
PASSPHRASE: Final = "of the exported keys"  # noqa: S105  # the same for everybody who measures
ROOMS: Final = 100
DEVICES_OF_A_USER: Final = 20


def key_id(numbers: random.Random) -> str:
    """What a Curve25519 or Ed25519 key looks like."""
    return base64.b64encode(numbers.randbytes(32)).decode().rstrip("=")


def room_ids(count: int = ROOMS) -> list[str]:
    """The same rooms in every process."""
    numbers = random.Random("rooms")
    return [f"!{''.join(numbers.choices(string.ascii_letters, k=18))}:example.org" for _ in range(count)]


def device_keys(count: int) -> Iterator[tuple[str, str, str, str]]:
    """User id, device id, Ed25519 and Curve25519 key: the same devices in every process."""
    numbers = random.Random("devices")
    for number in range(count):
        device_id = "".join(numbers.choices(string.ascii_uppercase, k=10))
        yield f"@user{number // DEVICES_OF_A_USER}:example.org", device_id, key_id(numbers), key_id(numbers)
