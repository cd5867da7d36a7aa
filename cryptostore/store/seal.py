"""Sealed values: every record's fields, encrypted and bound to their key and account.

    version       1 byte    how the rest is sealed; 1 = AES-256-GCM-SIV, 2 is reserved for AES-256-GCM
    data key id   4 bytes   big-endian
    nonce        12 bytes
    sealed                  ciphertext and tag of the format number and the fields

Authenticated beside the text: "cryptostore record" NUL user id NUL device id NUL, the first two fields, the record's
key.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from cryptography.exceptions import InvalidTag

from cryptostore.records.record import Account

from .aead import NONCE_BYTES, TAG_BYTES, cipher, context
from .interface import Row
from .ring import DataKey

#: How values are sealed; the other versions' numbers are in the module's docstring.
VERSION: Final = 1

_HEADER_BYTES: Final = 5
_SEALED_AT: Final = _HEADER_BYTES + NONCE_BYTES
_LEAST_BYTES: Final = _SEALED_AT + TAG_BYTES + 1
#: How much longer a value is than what it holds.
OVERHEAD_BYTES: Final = _SEALED_AT + TAG_BYTES


class Reason(StrEnum):
    """Why a value cannot be opened."""

    TAMPERED = "was altered, or moved here from another key or account"
    UNKNOWN_DATA_KEY = "was sealed with a data key that is not in the key ring"
    UNKNOWN_VERSION = "was sealed in a way that this version of matrix-cryptostore does not know"
    TRUNCATED = "is too short to be a sealed value"


class Unsealable(ValueError):
    """A value cannot be opened. `data_key_id` is the id that the value names, unless it is too short or too new."""

    def __init__(self, reason: Reason, data_key_id: int | None = None) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.data_key_id = data_key_id


class Seal:
    """Seals and opens one account's values. Thread-safe.

    The first data key seals; all of them open. Raises ConfigurationError where OpenSSL has no AES-GCM-SIV.
    """

    def __init__(self, account: Account, data_keys: Sequence[DataKey]) -> None:
        prefix = context("cryptostore record", account)
        headers = [bytes([VERSION]) + key.id.to_bytes(4, "big") for key in data_keys]
        self._openers: Final = {
            header: (cipher(key.key), prefix + header) for header, key in zip(headers, data_keys, strict=True)
        }
        self._header: Final = headers[0]
        self._cipher, self._context = self._openers[self._header]

    def seal(self, raw_key: bytes, plain: bytes) -> bytes:
        """The value to store under this key; `plain` is not empty."""
        return self._sealed(raw_key, plain, os.urandom(NONCE_BYTES))

    def seal_all(self, plains: Sequence[tuple[bytes, bytes]]) -> list[Row]:
        """The rows to store, for keys and texts. Less work than sealing one by one."""
        nonces = os.urandom(NONCE_BYTES * len(plains))
        return [
            Row(raw_key, self._sealed(raw_key, plain, nonces[at : at + NONCE_BYTES]))
            for at, (raw_key, plain) in zip(range(0, len(nonces), NONCE_BYTES), plains, strict=True)
        ]

    def open(self, raw_key: bytes, value: bytes) -> bytes:
        """What was sealed under this key. Raises Unsealable."""
        opener = self._openers.get(value[:_HEADER_BYTES])
        if opener is None or len(value) < _LEAST_BYTES:
            raise _unsealable(value)
        cipher, context = opener
        try:
            return cipher.decrypt(value[_HEADER_BYTES:_SEALED_AT], value[_SEALED_AT:], context + raw_key)
        except InvalidTag:
            raise Unsealable(Reason.TAMPERED, _data_key_id(value)) from None

    def has_sealed(self, value: bytes) -> bool:
        """Whether the value names the data key that seals now."""
        return value.startswith(self._header)

    def _sealed(self, raw_key: bytes, plain: bytes, nonce: bytes) -> bytes:
        return self._header + nonce + self._cipher.encrypt(nonce, plain, self._context + raw_key)


def _unsealable(value: bytes) -> Unsealable:
    """Why a value is not even tried."""
    if value[:1] not in (b"", bytes([VERSION])):
        return Unsealable(Reason.UNKNOWN_VERSION)
    if len(value) < _LEAST_BYTES:
        return Unsealable(Reason.TRUNCATED)
    return Unsealable(Reason.UNKNOWN_DATA_KEY, _data_key_id(value))


def _data_key_id(value: bytes) -> int:
    return int.from_bytes(value[1:_HEADER_BYTES], "big")
