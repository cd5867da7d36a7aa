"""Ed25519 signatures of JSON objects (Matrix specification, appendix "Signing JSON")."""

from __future__ import annotations

import copy
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from vodozemac import Ed25519PublicKey, Ed25519Signature

from . import unpadded_base64
from .canonical_json import canonical_json

ALGORITHM: Final = "ed25519:"
KEY_BYTES: Final = 32
SEED_BYTES: Final = 32


def public_key(seed: bytes) -> str:
    """The public key of a seed, as unpadded base64."""
    return unpadded_base64.encode(_private_key(seed).public_key().public_bytes_raw())


def sign(content: dict[str, Any], user_id: str, key_id: str, seed: bytes) -> dict[str, Any]:
    """A copy of a JSON object with this user's signature added to those that it has; what is no signature is left out.

    `key_id` is the whole signing key identifier, `ed25519:` included. The same arguments give the same signature.
    Raises ValueError for another algorithm, a seed that is not of 32 bytes, and what canonical JSON does not have.
    """
    if not key_id.startswith(ALGORITHM):
        raise ValueError("the id of a signing key begins with ed25519:")
    signature = _private_key(seed).sign(_signed_part(content))
    signed, others = copy.deepcopy(content), _signatures_of(content)
    signed["signatures"] = {**others, user_id: {**others.get(user_id, {}), key_id: unpadded_base64.encode(signature)}}
    return signed


def is_signed(content: Any, user_id: str, public_key: str, key_id: str | None = None) -> bool:
    """Whether the object carries a signature of this user by this key that verifies. Never raises, whatever came.

    `key_id` is the whole signing key identifier; without one, that of a cross-signing key: `ed25519:` and the key.
    """
    try:
        signature = content["signatures"][user_id][key_id or ALGORITHM + public_key]
        _public_key(public_key).verify_signature(_signed_part(content), Ed25519Signature.from_base64(signature))
    # vodozemac's own errors are ValueErrors.
    except (LookupError, TypeError, ValueError):
        return False
    return True


def _signatures_of(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    by_user = content.get("signatures")
    of_users = by_user.items() if isinstance(by_user, dict) else ()
    return {user_id: dict(by_key) for user_id, by_key in of_users if isinstance(by_key, dict)}


def _public_key(text: str) -> Ed25519PublicKey:
    # At 33 bytes vodozemac panics, which is no Exception in Python.
    return Ed25519PublicKey.from_base64(unpadded_base64.encode(unpadded_base64.decode(text, size=KEY_BYTES)))


def _private_key(seed: bytes) -> Ed25519PrivateKey:
    if len(seed) != SEED_BYTES:
        raise ValueError(f"the seed of a signing key has {SEED_BYTES} bytes, not {len(seed)}")
    return Ed25519PrivateKey.from_private_bytes(seed)


def _signed_part(content: dict[str, Any]) -> bytes:
    return canonical_json({key: value for key, value in content.items() if key not in {"signatures", "unsigned"}})
