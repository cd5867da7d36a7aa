"""Cross-signing identities and devices, made with what Synapse brings, for the scripts here that need some."""

from __future__ import annotations

import copy
from typing import Any

from signedjson.key import generate_signing_key, get_verify_key
from signedjson.sign import sign_json
from unpaddedbase64 import encode_base64


def key() -> Any:
    """A new Ed25519 key, named by its public half."""
    made = generate_signing_key("new")
    made.version = public(made)
    return made


def public(signing_key: Any) -> str:
    """The public half, in unpadded base64."""
    return str(encode_base64(get_verify_key(signing_key).encode()))


def signed(value: Any, user: str, signing_key: Any) -> Any:
    """A copy of an object with one more signature."""
    return sign_json(copy.deepcopy(value), user, signing_key)


class Identity:
    """A user's three keys."""

    def __init__(self, user: str) -> None:
        self._user = user
        self.master, self.self_signing, self.user_signing = key(), key(), key()

    def upload(self) -> dict[str, Any]:
        """The body of /keys/device_signing/upload."""
        return {
            "master_key": self._object("master", self.master),
            "self_signing_key": signed(self._object("self_signing", self.self_signing), self._user, self.master),
            "user_signing_key": signed(self._object("user_signing", self.user_signing), self._user, self.master),
        }

    def _object(self, usage: str, signing_key: Any) -> dict[str, Any]:
        keys = {f"ed25519:{public(signing_key)}": public(signing_key)}
        return {"user_id": self._user, "usage": [usage], "keys": keys}


class Device:
    """A device's signing key, and its keys as a client uploads them."""

    def __init__(self, user: str, device_id: str) -> None:
        self._user, self._id = user, device_id
        self._key = key()
        self._key.version = device_id
        # Nobody encrypts for it here, so that any 32 bytes do.
        self._curve25519 = public(key())

    def keys(self, *algorithms: str) -> Any:
        keys = {f"ed25519:{self._id}": public(self._key), f"curve25519:{self._id}": self._curve25519}
        content = {"user_id": self._user, "device_id": self._id, "algorithms": list(algorithms), "keys": keys}
        return self.signed(content)

    def signed(self, value: Any) -> Any:
        return signed(value, self._user, self._key)
