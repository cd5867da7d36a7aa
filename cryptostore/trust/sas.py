"""Short authentication strings: the cryptography of one verification.

Matrix specification, section "Short Authentication String (SAS) verification".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

from vodozemac import Curve25519PublicKey, EstablishedSas, Sas

from . import unpadded_base64
from .canonical_json import canonical_json
from .emoji import EMOJI, Emoji

KEY_AGREEMENT: Final = "curve25519-hkdf-sha256"
HASH: Final = "sha256"
MAC: Final = "hkdf-hmac-sha256.v2"
#: Writes its MACs in a base64 of its own. Never chosen where the other side has `MAC`.
OLD_MAC: Final = "hkdf-hmac-sha256"
EMOJI_METHOD: Final = "emoji"
DECIMAL_METHOD: Final = "decimal"

#: Takes the place of a key id where the list of all key ids has a MAC.
KEY_IDS: Final = "KEY_IDS"
#: Before the device id, or the master key, in the id of a key.
ED25519: Final = "ed25519:"
_KEY_BYTES: Final = 32


class DeviceId(NamedTuple):
    """A device of a user. The order of two decides which `start` counts when both send one."""

    user_id: str
    device_id: str


class Side(NamedTuple):
    """A device, and the public key that it made for this verification."""

    device: DeviceId
    public_key: str


class ShortAuth(NamedTuple):
    """What both people compare: seven emoji, or none if one side cannot show them, and three numbers."""

    emoji: tuple[Emoji, ...]
    decimals: tuple[int, int, int]


def key_ids(device: DeviceId, device_key: str, master_key: str | None = None) -> dict[str, str]:
    """The keys of one side by their ids: the device's Ed25519 key, and the master key if there is one.

    Raises ValueError where both would have one id: a homeserver that names a device after a master key could have one
    key taken for the other.
    """
    keys = {ED25519 + device.device_id: device_key}
    if master_key is None:
        return keys
    if master_key == device.device_id:
        raise ValueError(f"{device.user_id} has a device that is named after the master key")
    return {**keys, ED25519 + master_key: master_key}


def commitment(public_key: str, start: Mapping[str, Any]) -> str:
    """The hash that binds who accepts to its key before it sees the other's; `start` is the content as it came.

    Raises ValueError for content that canonical JSON does not have.
    """
    return unpadded_base64.encode(hashlib.sha256(public_key.encode() + canonical_json(dict(start))).digest())


def sas_info(starter: Side, accepter: Side, transaction_id: str) -> str:
    """What the short string is bound to. The starter is who sent `start`, whoever asked."""
    both = [part for side in (starter, accepter) for part in (*side.device, side.public_key)]
    return "|".join(["MATRIX_KEY_VERIFICATION_SAS", *both, transaction_id])


def mac_info(sender: DeviceId, receiver: DeviceId, transaction_id: str, key_id: str) -> str:
    """What the MAC of a key is bound to."""
    return "".join(["MATRIX_KEY_VERIFICATION_MAC", *sender, *receiver, transaction_id, key_id])


class SharedSecret:
    """What both sides have in common once each has the other's key."""

    def __init__(self, established: EstablishedSas) -> None:
        self._established = established

    def short_auth(self, info: str, methods: Collection[str]) -> ShortAuth:
        """What to compare, with emoji if that is one of the methods."""
        short = self._established.bytes(info)
        emoji = tuple(EMOJI[index] for index in short.emoji_indices) if EMOJI_METHOD in methods else ()
        return ShortAuth(emoji, short.decimals)

    def mac(self, method: str, text: str, info: str) -> str:
        """The MAC of a text."""
        if method == OLD_MAC:
            return self._established.calculate_mac_invalid_base64(text, info)
        return self._established.calculate_mac(text, info)


class Macs:
    """The MACs of one verification: of keys, and of the list of their ids."""

    def __init__(self, secret: SharedSecret, method: str, own: DeviceId, other: DeviceId, transaction_id: str) -> None:
        self._secret = secret
        self._method = method
        self._own = own
        self._other = other
        self._transaction_id = transaction_id

    def own(self, keys: Mapping[str, str]) -> tuple[dict[str, str], str]:
        """The MACs of our keys by their ids, and that of the ids."""
        macs = {key_id: self._mac(self._own, self._other, key_id, key) for key_id, key in keys.items()}
        return macs, self._mac(self._own, self._other, KEY_IDS, _listed(keys))

    def verified(self, macs: Mapping[str, str], mac_of_ids: str, known: Mapping[str, str]) -> frozenset[str]:
        """The ids of the known keys among those that the other side has MACs of. Others, not known here, say nothing.

        None of them is verified if one MAC is wrong.
        """
        there = [key_id for key_id in macs if key_id in known]
        are_right = [self._is_theirs(each, known[each], macs[each]) for each in there]
        is_whole = self._is_theirs(KEY_IDS, _listed(macs), mac_of_ids)
        return frozenset(there) if is_whole and all(are_right) else frozenset()

    def _is_theirs(self, key_id: str, text: str, given: str) -> bool:
        expected = self._mac(self._other, self._own, key_id, text)
        # A valid base64 may be padded.
        return hmac.compare_digest(expected.encode(), given.rstrip("=").encode())

    def _mac(self, sender: DeviceId, receiver: DeviceId, key_id: str, text: str) -> str:
        return self._secret.mac(self._method, text, mac_info(sender, receiver, self._transaction_id, key_id))


class EphemeralKey:
    """A key that is made for one verification, and used once."""

    def __init__(self) -> None:
        self._sas = Sas()
        self.public: Final[str] = self._sas.public_key.to_base64()

    def agree(self, public_key: str) -> SharedSecret:
        """The secret shared with who has this public key. Raises ValueError for what is no key that adds to it."""
        # vodozemac's own errors are ValueErrors, but for some lengths it panics.
        raw = unpadded_base64.decode(public_key, size=_KEY_BYTES)
        return SharedSecret(self._sas.diffie_hellman(Curve25519PublicKey.from_bytes(raw)))


def public_key(given: str) -> str:
    """A public key that came, as unpadded base64. Raises ValueError for what is none."""
    return unpadded_base64.encode(unpadded_base64.decode(given, size=_KEY_BYTES))


def _listed(keys: Iterable[str]) -> str:
    return ",".join(sorted(keys))
