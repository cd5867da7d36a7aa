"""What answers to `/keys/query` prove of users' identities: signatures are verified once, and not on the event loop."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from cryptostore.logs import logger
from cryptostore.trust.cross_signing import PublicIdentity, public_identity
from cryptostore.trust.signatures import is_signed

#: Where an answer has the cross-signing keys.
GROUPS: Final = ("master_keys", "self_signing_keys", "user_signing_keys")

#: How many devices' signatures are remembered: about 15 MB.
_REMEMBERED: Final = 100_000

_log: Final = logger(__name__)


class Judged(NamedTuple):
    """What an answer proves of one user."""

    #: None if the answer has no identity, or one that is not to be believed.
    identity: PublicIdentity | None
    #: By device id, the Ed25519 key of each device that the self-signing key signed; empty for the others.
    signed_keys: Mapping[str, str]
    #: Whether it is the account's own identity, or one that its user-signing key signed.
    is_verified: bool


class TrustedKeys(NamedTuple):
    """The account's user, and the public keys whose seeds the account has: what those have signed, it believes."""

    user_id: str
    #: Empty if there is no seed.
    master_key: str = ""
    user_signing_key: str = ""

    def verify(self, identity: PublicIdentity) -> bool:
        """Whether an identity is the account's own, or was verified by it, on whichever device."""
        if identity.user_id == self.user_id:
            return identity.master_key == self.master_key
        return bool(self.user_signing_key) and is_signed(identity.master_object, self.user_id, self.user_signing_key)


class Signatures:
    """Which devices are signed by which keys. Each object is verified once, as long as it is remembered.

    Concurrency: may be asked from any thread.
    """

    def __init__(self, remembered: int = _REMEMBERED) -> None:
        self._lock = threading.Lock()
        self._known: dict[bytes, bool] = {}
        self._remembered = remembered
        #: How many signatures were verified.
        self.verified = 0

    def is_signed(self, device: Mapping[str, Any], user_id: str, key: str, key_id: str = "") -> bool:
        """Whether this Ed25519 key of the user's signed the device. Without an id it is a cross-signing key."""
        name = key_id or f"ed25519:{key}"
        digest = _digest(device, key, name) if name in signers(device, user_id) else None
        if digest is None:
            return False
        with self._lock:
            known = self._known.get(digest)
        if known is None:
            known = is_signed(device, user_id, key, name)
            self._remember(digest, known)
        return known

    def _remember(self, digest: bytes, is_signed_so: bool) -> None:
        with self._lock:
            self._known[digest] = is_signed_so
            self.verified += 1
            if len(self._known) > self._remembered:
                # The one that was verified first.
                del self._known[next(iter(self._known))]


def signers(device: Mapping[str, Any], user_id: str) -> Mapping[str, Any]:
    """The user's signatures of an object by the ids of the keys, as they came."""
    by_user = device.get("signatures")
    by_key = by_user.get(user_id) if isinstance(by_user, dict) else None
    return by_key if isinstance(by_key, dict) else {}


def judged(
    answer: Mapping[str, Any],
    device_keys: Mapping[str, Mapping[str, Any]],
    self_signing_keys: Mapping[str, str],
    trusted: TrustedKeys,
    signatures: Signatures,
) -> dict[str, Judged]:
    """What an answer proves of its users. From any thread.

    `answer` has the cross-signing keys and `device_keys` the devices. `self_signing_keys` are the known ones, for users
    of whom the answer has none.
    """
    found = {}
    for user_id, devices in device_keys.items():
        identity = _identity(user_id, answer)
        key = identity.self_signing_key if identity else self_signing_keys.get(user_id, "")
        signed = {
            device_id: _signed_key(device_id, user_id, each, key, signatures) for device_id, each in devices.items()
        }
        found[user_id] = Judged(identity, signed, identity is not None and trusted.verify(identity))
    return found


def _identity(user_id: str, answer: Mapping[str, Any]) -> PublicIdentity | None:
    try:
        return public_identity(user_id, answer)
    except ValueError as error:
        _log.warning("ignored an identity: %s", error)
        return None


def _signed_key(device_id: str, user_id: str, device: Any, self_signing_key: str, signatures: Signatures) -> str:
    if device.get("device_id") != device_id or device.get("user_id") != user_id:
        return ""
    key = device["keys"].get(f"ed25519:{device_id}")
    return key if isinstance(key, str) and signatures.is_signed(device, user_id, self_signing_key) else ""


def _digest(device: Mapping[str, Any], key: str, key_id: str) -> bytes | None:
    content = {name: value for name, value in device.items() if name != "unsigned"}
    try:
        text = json.dumps([key_id, key, content], sort_keys=True)
    except RecursionError:
        return None
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
