"""Secrets of an account's user, sealed once more than every record is.

A sealed secret is a nonce of 12 bytes, then ciphertext and tag of AES-256-GCM-SIV under a key of its own, which HKDF
derives from the account's replay key: that outlives data keys and pickle keys. Authenticated beside the text:
"cryptostore secret" NUL user id NUL device id NUL, the secret's name.
"""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from cryptostore.errors import UnreadableRecord
from cryptostore.records.record import Account

from .aead import KEY_BYTES, NONCE_BYTES, cipher, context


class SecretSeal:
    """Seals and opens one account's secrets, by their names. The repr shows no key."""

    def __init__(self, account: Account, replay_key: bytes) -> None:
        self._account = account
        self._cipher: Final = cipher(HKDFExpand(SHA256(), KEY_BYTES, info=b"cryptostore secrets").derive(replay_key))

    def seal(self, name: str, secret: bytes) -> bytes:
        """What to store under this name."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, self._bound_to(name))

    def open(self, name: str, sealed: bytes) -> bytes:
        """The secret with this name. Raises UnreadableRecord for what was altered, or sealed under another name."""
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], self._bound_to(name))
        except (InvalidTag, ValueError):
            raise UnreadableRecord(
                f"the secret {name} of {self._account} was altered, or moved here from another name or account; "
                "restore the account from a backup"
            ) from None

    def _bound_to(self, name: str) -> bytes:
        return context("cryptostore secret", self._account) + name.encode()
