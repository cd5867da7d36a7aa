"""Cross-signing: a user's three keys, which say whose a device is and who was verified.

The master key signs the other two, the self-signing key the user's own devices, the user-signing key the master keys of
other users (Matrix specification, "Cross-signing").
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from . import signatures
from .signatures import ALGORITHM, SEED_BYTES

#: The names of the seeds, in secret storage and everywhere else.
MASTER: Final = "m.cross_signing.master"
SELF_SIGNING: Final = "m.cross_signing.self_signing"
USER_SIGNING: Final = "m.cross_signing.user_signing"
SECRET_NAMES: Final = (MASTER, SELF_SIGNING, USER_SIGNING)


@dataclass(frozen=True, slots=True)
class PublicKeys:
    """The three public keys, unpadded base64. A key that a homeserver shows to nobody but its owner is empty."""

    master: str
    self_signing: str = ""
    user_signing: str = ""


@dataclass(frozen=True, slots=True)
class Seeds:
    """The private halves of the three keys, 32 bytes each. Raises ValueError for other lengths. Shows nothing."""

    master: bytes = field(repr=False)
    self_signing: bytes = field(repr=False)
    user_signing: bytes = field(repr=False)

    def __post_init__(self) -> None:
        for name, seed in self.by_name().items():
            if len(seed) != SEED_BYTES:
                raise ValueError(f"{name} has {len(seed)} bytes instead of {SEED_BYTES}")

    @classmethod
    def new(cls) -> Self:
        """Three new seeds."""
        return cls(*(secrets.token_bytes(SEED_BYTES) for _ in SECRET_NAMES))

    @classmethod
    def of(cls, by_name: Mapping[str, bytes | None]) -> Self | None:
        """The seeds under the names of their secrets; None where one of the three is missing."""
        there = [seed for name in SECRET_NAMES if (seed := by_name.get(name)) is not None]
        return cls(*there) if len(there) == len(SECRET_NAMES) else None

    def by_name(self) -> dict[str, bytes]:
        """The seeds under the names of their secrets."""
        return {MASTER: self.master, SELF_SIGNING: self.self_signing, USER_SIGNING: self.user_signing}

    @property
    def public(self) -> PublicKeys:
        """The public keys of these seeds."""
        return PublicKeys(*(signatures.public_key(seed) for seed in self.by_name().values()))

    def upload(self, user_id: str) -> dict[str, Any]:
        """The body of `/keys/device_signing/upload`, a function of the seeds and the user alone.

        A homeserver takes the same bytes again without asking for a password, and only those: a signature of a device
        goes up by `/keys/signatures/upload`.
        """
        public = self.public
        return {
            "master_key": _key_object(user_id, "master", public.master),
            "self_signing_key": self._signed_by_master(user_id, "self_signing", public.self_signing),
            "user_signing_key": self._signed_by_master(user_id, "user_signing", public.user_signing),
        }

    def sign_device(self, user_id: str, device_object: dict[str, Any]) -> dict[str, Any]:
        """A copy of one of the user's own devices, without `unsigned`, signed by the self-signing key."""
        return _signed(device_object, user_id, self.self_signing)

    def sign_master_key(self, user_id: str, their_master_object: dict[str, Any]) -> dict[str, Any]:
        """A copy of another user's master key, without `unsigned`, signed by this user's user-signing key."""
        return _signed(their_master_object, user_id, self.user_signing)

    def _signed_by_master(self, user_id: str, usage: str, public_key: str) -> dict[str, Any]:
        return _signed(_key_object(user_id, usage, public_key), user_id, self.master)


@dataclass(frozen=True, slots=True)
class PublicIdentity:
    """A user's public keys, of which the master key signed the others. Made by `public_identity` alone."""

    user_id: str
    master_key: str
    #: Empty if the answer had none: then nothing is signed.
    self_signing_key: str
    #: Empty if the answer had none, as for every other user than the asking one.
    user_signing_key: str
    #: As the answer had it, to be signed and to look for signatures in.
    master_object: dict[str, Any] = field(repr=False)

    @property
    def public_keys(self) -> PublicKeys:
        """The three keys, to compare with `Seeds.public`."""
        return PublicKeys(self.master_key, self.self_signing_key, self.user_signing_key)

    def signs_device(self, device_object: Any) -> bool:
        """Whether the present self-signing key signed this device of this user. Never raises.

        The device's own signature is not looked at; a signature by a former self-signing key does not count.
        """
        return (
            isinstance(device_object, dict)
            and device_object.get("user_id") == self.user_id
            and isinstance(device_object.get("device_id"), str)
            and signatures.is_signed(device_object, self.user_id, self.self_signing_key)
        )


def public_identity(user_id: str, answer: Any) -> PublicIdentity | None:
    """A user's identity in the answer to `/keys/query`, its chain of signatures verified; None if it has none.

    None too if the user's server could not be asked: see the answer's `failures`. Raises ValueError, whose text is to
    be logged, for keys of another user, for another use, in a wrong form, or not signed by the present master key.
    """
    master_object = _object(answer, "master_keys", user_id)
    if master_object is None:
        return None
    master_key = _key_of(master_object, user_id, "master")
    self_signing_key = _subkey(answer, user_id, "self_signing", master_key)
    user_signing_key = _subkey(answer, user_id, "user_signing", master_key)
    return PublicIdentity(user_id, master_key, self_signing_key, user_signing_key, master_object)


def _subkey(answer: Any, user_id: str, usage: str, master_key: str) -> str:
    content = _object(answer, f"{usage}_keys", user_id)
    if content is None:
        return ""
    key = _key_of(content, user_id, usage)
    if not signatures.is_signed(content, user_id, master_key):
        raise ValueError(f"the {usage} key of {user_id} is not signed by the user's present master key")
    return key


def _object(answer: Any, group: str, user_id: str) -> Any:
    of_users = answer.get(group) if isinstance(answer, dict) else None
    return of_users.get(user_id) if isinstance(of_users, dict) else None


def _key_of(content: Any, user_id: str, usage: str) -> str:
    """The public key in a cross-signing key object. Raises ValueError."""
    if not isinstance(content, dict) or content.get("user_id") != user_id:
        raise ValueError(f"the {usage} key of {user_id} does not say that it is this user's")
    if not isinstance(content.get("usage"), list) or usage not in content["usage"]:
        raise ValueError(f"the {usage} key of {user_id} is not for this use")
    key = _only_key(content.get("keys"))
    if key is None:
        raise ValueError(f"the {usage} key of {user_id} has not exactly one key, under its own name")
    return key


def _only_key(keys: Any) -> str | None:
    if not isinstance(keys, dict) or len(keys) != 1:
        return None
    ((key_id, key),) = keys.items()
    return key if isinstance(key, str) and key and key_id == ALGORITHM + key else None


def _key_object(user_id: str, usage: str, public_key: str) -> dict[str, Any]:
    return {"user_id": user_id, "usage": [usage], "keys": {ALGORITHM + public_key: public_key}}


def _signed(content: dict[str, Any], user_id: str, seed: bytes) -> dict[str, Any]:
    bare = {key: value for key, value in content.items() if key != "unsigned"}
    return signatures.sign(bare, user_id, ALGORITHM + signatures.public_key(seed), seed)
