"""Accounts with devices and sessions, as the tests of nio's defects and of the containers need them."""

from __future__ import annotations

from typing import Any

from nio.crypto import InboundSession, OlmAccount, OlmDevice, OutboundSession
from vodozemac import PreKeyMessage

from cryptostore import Account
from cryptostore_contract.samples import ALICE, BOB, KEY
from nio_places import Place

AnyPlace = Place[Any]


def with_account(place: AnyPlace, account: Account = ALICE, pickle_key: str = KEY) -> Any:
    """A store that has an Olm account."""
    store = place.open(account, pickle_key)
    store.save_account(OlmAccount())
    return store


def device(number: int = 1, **changed: Any) -> OlmDevice:
    """A device of Bob's."""
    values = {"keys": {"ed25519": f"ed{number}", "curve25519": f"curve{number}"}, "display_name": "phone", **changed}
    return OlmDevice(BOB.user_id, f"DEVICE{number}", **values)


def save(store: Any, *devices: OlmDevice) -> None:
    """Save devices of Bob's."""
    store.save_device_keys({BOB.user_id: {each.id: each for each in devices}})


def olm_pair(one: OlmAccount, other: OlmAccount) -> tuple[OutboundSession, InboundSession]:
    """Both ends of an Olm session; the other's one-time key is consumed."""
    outbound, message = first_message(one, other)
    inbound = InboundSession(other, message, one.identity_keys["curve25519"])
    inbound.decrypt(message)
    return outbound, inbound


def first_message(one: OlmAccount, other: OlmAccount) -> tuple[OutboundSession, PreKeyMessage]:
    """One's end of an Olm session with the other, and the message that begins it."""
    other.generate_one_time_keys(1)
    (one_time_key,) = other.one_time_keys["curve25519"].values()
    other.mark_keys_as_published()
    outbound = OutboundSession(one, other.identity_keys["curve25519"], one_time_key)
    message = outbound.encrypt("hello").to_pre_key()
    assert message is not None
    return outbound, message
