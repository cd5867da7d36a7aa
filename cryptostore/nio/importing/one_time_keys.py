"""The one-time keys of an imported account: none is offered twice, and none gives its place to the next one made."""

from __future__ import annotations

import binascii
import hmac
import json
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.padding import PKCS7
from nio.crypto import OlmAccount
from nio.crypto.sessions import derive_pickle_key

#: For pickles that are in memory only.
_KEY: Final = "one-time keys"
_MAC_LENGTH: Final = 8
_BLOCK: Final = 128


class UnknownPickleError(Exception):
    """vodozemac writes an account in a form that is not known here."""


def keep_for_the_homeserver(account: OlmAccount) -> OlmAccount:
    """The account with every one-time key marked as published, and a number for the next one that no key has.

    The homeserver may have any of the keys: nio saved an account before it knew, and numbers of libolm's look different
    in vodozemac. libolm also writes the number that it gave last where vodozemac expects the one to give next, so that
    the next key would take the place of one that the homeserver may hand out.

    Raises UnknownPickleError.
    """
    account.mark_keys_as_published()
    sealed = _PickleCipher()
    try:
        content = json.loads(sealed.open(account.pickle(_KEY)))
        if not _has_taken_number(content["one_time_keys"]):
            return account
        opened = OlmAccount.from_pickle(sealed.close(json.dumps(content).encode()), _KEY, account.shared)
    except (KeyError, TypeError, ValueError) as error:
        # What it may quote is secret.
        raise UnknownPickleError(type(error).__name__) from None
    return opened


def _has_taken_number(keys: dict[str, Any]) -> bool:
    """Whether the number of the next key was that of another; it is a free one now."""
    last = max(map(int, keys["private_keys"]), default=-1)
    if keys["next_key_id"] > last:
        return False
    keys["next_key_id"] = last + 1
    return True


class _PickleCipher:
    """Opens and closes a pickle, as libolm has always done."""

    def __init__(self) -> None:
        derived = HKDF(SHA256(), 80, None, b"Pickle").derive(derive_pickle_key(_KEY))
        self._cipher = Cipher(AES256(derived[:32]), CBC(derived[64:]))
        self._mac_key = derived[32:64]

    def open(self, pickle: bytes) -> bytes:
        raw = binascii.a2b_base64(pickle + b"=" * (-len(pickle) % 4))
        decryptor, unpadder = self._cipher.decryptor(), PKCS7(_BLOCK).unpadder()
        padded = decryptor.update(raw[:-_MAC_LENGTH]) + decryptor.finalize()
        return unpadder.update(padded) + unpadder.finalize()

    def close(self, plain: bytes) -> bytes:
        encryptor, padder = self._cipher.encryptor(), PKCS7(_BLOCK).padder()
        padded = padder.update(plain) + padder.finalize()
        sealed = encryptor.update(padded) + encryptor.finalize()
        mac = hmac.digest(self._mac_key, sealed, "sha256")[:_MAC_LENGTH]
        return binascii.b2a_base64(sealed + mac, newline=False).rstrip(b"=")
