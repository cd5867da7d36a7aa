"""Which positions of Olm and Megolm ratchets messages were encrypted with, as somebody sees who keeps them all."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from typing import Any, Final, NamedTuple

import vodozemac

Json = dict[str, Any]

_PRE_KEY: Final = 0
#: Tags of a message's fields: its ratchet key, and its index; of a pre-key message, the message inside.
_RATCHET_KEY, _INDEX, _INSIDE = 0x0A, 0x10, 0x22


class Use(NamedTuple):
    """One position of a ratchet, and what was encrypted with it."""

    position: Hashable
    ciphertext: str


def used_twice(uses: Iterable[Use]) -> list[Hashable]:
    """The positions with which more than one thing was encrypted."""
    by_position: defaultdict[Hashable, set[str]] = defaultdict(set)
    for use in uses:
        by_position[use.position].add(use.ciphertext)
    return [position for position, ciphertexts in by_position.items() if len(ciphertexts) > 1]


def megolm_use(content: Json) -> Use:
    """The use in the content of a room's message."""
    index = vodozemac.MegolmMessage.from_base64(content["ciphertext"]).message_index()
    return Use((content["session_id"], index), content["ciphertext"])


def olm_uses(messages: Json) -> Iterator[Use]:
    """The uses in a request with to-device messages, by user and device."""
    for devices in messages.values():
        for content in devices.values():
            for sent in content["ciphertext"].values():
                yield Use(_olm_position(sent["type"], _decoded(sent["body"])), sent["body"])


def _olm_position(kind: int, message: bytes) -> Hashable:
    fields = dict(_fields(message))
    if kind == _PRE_KEY:
        fields = dict(_fields(bytes(fields[_INSIDE])))
    return fields[_RATCHET_KEY], fields[_INDEX]


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message, after its version; what follows the last one is its MAC."""
    at = 1
    while at < len(message):
        tag, at = message[at], at + 1
        if tag not in (_RATCHET_KEY, _INDEX, _INSIDE, 0x12, 0x1A):
            return
        number, at = _number(message, at)
        if tag == _INDEX:
            yield tag, number
            continue
        yield tag, message[at : at + number]
        at += number


def _number(message: bytes, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and where it ends."""
    number = shift = 0
    while True:
        number |= (message[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if message[at - 1] < 0x80:
            return number, at


def _decoded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4))
