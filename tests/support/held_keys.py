"""The public halves of all keys of an Olm account that others may begin a session with."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from nio.crypto import OlmAccount

from cryptostore.nio.importing.one_time_keys import _PickleCipher

_KEY: Final = "one-time keys"


def held_keys(account: OlmAccount) -> set[str]:
    """One-time keys and fallback keys whose private halves are there."""
    content = json.loads(_PickleCipher().open(account.pickle(_KEY)))
    return {_public(private) for private in _private(content)}


def _private(content: dict[str, dict[str, object]]) -> Iterator[bytes]:
    one_time = content["one_time_keys"]["private_keys"]
    assert isinstance(one_time, dict)
    yield from map(bytes, one_time.values())
    for name in ("fallback_key", "previous_fallback_key"):
        fallback = content["fallback_keys"][name]
        if isinstance(fallback, dict):
            yield bytes(fallback["key"])


def _public(private: bytes) -> str:
    public = X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    return base64.b64encode(public).decode().rstrip("=")
