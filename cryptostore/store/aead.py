"""AES-256-GCM-SIV, and the additional data that it authenticates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from cryptostore.errors import ConfigurationError
from cryptostore.records.record import Account

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16


def cipher(key: bytes) -> AESGCMSIV:
    """The cipher with this key. Raises ConfigurationError where OpenSSL does not have it."""
    with required("AES-GCM-SIV"):
        return AESGCMSIV(key)


def context(purpose: str, account: Account) -> bytes:
    """Additional data that binds a text to its purpose and account. Ids hold no NUL, so each pair has its own."""
    return f"{purpose}\0{account.user_id}\0{account.device_id}\0".encode()


@contextmanager
def required(algorithm: str) -> Iterator[None]:
    """Turn what `cryptography` raises for an algorithm that OpenSSL does not have into a ConfigurationError."""
    try:
        yield
    except UnsupportedAlgorithm:
        raise ConfigurationError(
            f"the OpenSSL of the installed `cryptography` package does not offer {algorithm}; install the wheel of "
            "`cryptography` from PyPI, or build it against OpenSSL 3.2 or later, without FIPS mode"
        ) from None
