"""The contents of the events of a verification: made, and checked where they come from others.

Matrix specification, sections "Key verification framework" and "Verification messages specific to SAS".
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from .sas import DECIMAL_METHOD, EMOJI_METHOD, HASH, KEY_AGREEMENT, MAC, OLD_MAC

PREFIX: Final = "m.key.verification."
REQUEST: Final = PREFIX + "request"
READY: Final = PREFIX + "ready"
START: Final = PREFIX + "start"
ACCEPT: Final = PREFIX + "accept"
KEY: Final = PREFIX + "key"
MACS: Final = PREFIX + "mac"
DONE: Final = PREFIX + "done"
CANCEL: Final = PREFIX + "cancel"

#: Comparing short strings, the one method that this library has.
METHOD: Final = "m.sas.v1"
_SHORT_AUTH_METHODS: Final = (DECIMAL_METHOD, EMOJI_METHOD)
#: The best first.
_MACS: Final = (MAC, OLD_MAC)
#: Longer texts are no ids, keys or hashes. In bytes of UTF-8.
_LONGEST: Final = 255
#: A device key and a master key; nobody has more of them than this.
_MOST_MACS: Final = 50


class Code(StrEnum):
    """Why a verification was cancelled."""

    USER = "m.user"
    TIMEOUT = "m.timeout"
    UNKNOWN_TRANSACTION = "m.unknown_transaction"
    UNKNOWN_METHOD = "m.unknown_method"
    UNEXPECTED_MESSAGE = "m.unexpected_message"
    KEY_MISMATCH = "m.key_mismatch"
    INVALID_MESSAGE = "m.invalid_message"
    ACCEPTED = "m.accepted"
    MISMATCHED_COMMITMENT = "m.mismatched_commitment"
    MISMATCHED_SAS = "m.mismatched_sas"


#: What people read.
REASONS: Final = {
    Code.USER: "The user cancelled the verification",
    Code.TIMEOUT: "The verification took too long",
    Code.UNKNOWN_TRANSACTION: "The verification is not known here, or no longer",
    Code.UNKNOWN_METHOD: "There is no common method of verification",
    Code.UNEXPECTED_MESSAGE: "An event came that does not belong here",
    Code.KEY_MISMATCH: "A key is not the expected one",
    Code.INVALID_MESSAGE: "An event is malformed",
    Code.ACCEPTED: "Another device took the verification",
    Code.MISMATCHED_COMMITMENT: "The key is not the one that was promised",
    Code.MISMATCHED_SAS: "The short strings did not match",
}


class Flow(NamedTuple):
    """Which verification an event belongs to: the id of the request in a room, or a transaction between devices."""

    transaction_id: str
    is_in_room: bool

    def of(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """The content, said to be of this verification."""
        if self.is_in_room:
            return {**content, "m.relates_to": {"rel_type": "m.reference", "event_id": self.transaction_id}}
        return {**content, "transaction_id": self.transaction_id}


class UnknownMethod(ValueError):
    """The other side can nothing that this side can."""


class Chosen(NamedTuple):
    """What both sides can."""

    mac: str
    short_auth: tuple[str, ...]


def request(device_id: str, timestamp: int) -> dict[str, Any]:
    """What asks another device; the transaction comes beside it. `timestamp` in milliseconds."""
    return {"from_device": device_id, "methods": [METHOD], "timestamp": timestamp}


def room_request(device_id: str, user_id: str) -> dict[str, Any]:
    """What asks a user in a room; sent as `m.room.message`. Clients that know no verification show the body."""
    return {
        "msgtype": REQUEST,
        "body": "Key verification was requested here, which this client does not support.",
        "from_device": device_id,
        "methods": [METHOD],
        "to": user_id,
    }


def ready(device_id: str) -> dict[str, Any]:
    """What takes a request."""
    return {"from_device": device_id, "methods": [METHOD]}


def start(device_id: str) -> dict[str, Any]:
    """What begins to compare short strings."""
    return {
        "from_device": device_id,
        "method": METHOD,
        "key_agreement_protocols": [KEY_AGREEMENT],
        "hashes": [HASH],
        "message_authentication_codes": list(_MACS),
        "short_authentication_string": list(_SHORT_AUTH_METHODS),
    }


def accept(chosen: Chosen, commitment: str) -> dict[str, Any]:
    """What answers a start."""
    return {
        "method": METHOD,
        "key_agreement_protocol": KEY_AGREEMENT,
        "hash": HASH,
        "message_authentication_code": chosen.mac,
        "short_authentication_string": list(chosen.short_auth),
        "commitment": commitment,
    }


def cancel(code: str, reason: str) -> dict[str, Any]:
    """What ends a verification."""
    return {"code": code, "reason": reason}


def chosen_from_start(content: Mapping[str, Any]) -> Chosen:
    """What to take of what a start offers. Raises UnknownMethod, and ValueError for content of other types."""
    if text(content, "method") != METHOD:
        raise UnknownMethod("another method than m.sas.v1")
    offered = {name: _texts(content, name) for name in ("key_agreement_protocols", "hashes")}
    macs = [mac for mac in _MACS if mac in _texts(content, "message_authentication_codes")]
    short_auth = _texts(content, "short_authentication_string")
    shown = tuple(method for method in _SHORT_AUTH_METHODS if method in short_auth)
    known = KEY_AGREEMENT in offered["key_agreement_protocols"] and HASH in offered["hashes"]
    if not (known and macs and shown):
        raise UnknownMethod("no common key agreement, hash, MAC or short string")
    return Chosen(macs[0], shown)


def chosen_from_accept(content: Mapping[str, Any]) -> Chosen:
    """What the other side took. Raises UnknownMethod for what was not offered, ValueError for other types."""
    mac = text(content, "message_authentication_code")
    short_auth = _texts(content, "short_authentication_string")
    shown = tuple(method for method in _SHORT_AUTH_METHODS if method in short_auth)
    protocols = (text(content, "key_agreement_protocol"), text(content, "hash"))
    if protocols != (KEY_AGREEMENT, HASH) or mac not in _MACS or not shown:
        raise UnknownMethod("a key agreement, hash, MAC or short string that was not offered")
    return Chosen(mac, shown)


def macs(content: Mapping[str, Any]) -> dict[str, str]:
    """The MACs of keys by their ids. Raises ValueError."""
    given = content.get("mac")
    if not isinstance(given, dict) or not 0 < len(given) <= _MOST_MACS:
        raise ValueError("mac is no object of a few MACs")
    # JSON's keys are texts, but not all can be encoded.
    return {text({"key id": name}, "key id"): text(given, name) for name in given}


def text(content: Mapping[str, Any], name: str) -> str:
    """A text in a content that others wrote. Raises ValueError for none, and for one that is no id, key or hash."""
    value = content.get(name)
    # A lone surrogate cannot be encoded: its error is a ValueError, too.
    if not isinstance(value, str) or not 0 < len(value.encode()) <= _LONGEST:
        raise ValueError(f"{name} is no text of 1 to {_LONGEST} bytes")
    return value


def said(content: Mapping[str, Any], name: str) -> str:
    """The beginning of a text for people, whatever it is; empty if it is none."""
    value = content.get(name)
    return value[:_LONGEST] if isinstance(value, str) else ""


def has_method(content: Mapping[str, Any]) -> bool:
    """Whether a request or ready has our method. Raises ValueError for content of other types."""
    return METHOD in _texts(content, "methods")


def _texts(content: Mapping[str, Any], name: str) -> list[Any]:
    value = content.get(name)
    if not isinstance(value, list):
        raise ValueError(f"{name} is no list")
    return value
