"""Small secrets in the database, encrypted with a key that is derived from the pickle key."""

from __future__ import annotations

import hashlib
import secrets
from functools import lru_cache
from io import BytesIO
from typing import Any, Final

from Crypto.Cipher import AES

from cryptostore.errors import UnreadableRecord
from cryptostore.records import Account

#: The record, by namespace and name, in which a client keeps its login.
ACCESS_TOKEN: Final = ("client", "access token")

#: The binary logarithm of scrypt's N, for what is sealed from now on: about 50 ms and 16 MiB, because a pickle key may
#: be a word that somebody remembers. Each seal says what it was made with.
COST: Final = 14

_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_KEY_BYTES: Final = 32


class Seal:
    """Seals and opens one account's secrets. Slow on purpose: for a thread."""

    def __init__(self, account: Account, pickle_key: str) -> None:
        self._account = account
        self._pickle_key = pickle_key

    def seal(self, name: str, secret: str) -> bytes:
        """The secret, encrypted and bound to its account and name."""
        salt, nonce = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_NONCE_BYTES)
        ciphertext, tag = self._cipher(name, COST, salt, nonce).encrypt_and_digest(secret.encode())
        return bytes([COST]) + salt + nonce + bytes(tag + ciphertext)

    def open(self, name: str, sealed: bytes) -> str:
        """The secret. Raises UnreadableRecord for one that was damaged, belongs elsewhere, or has another key."""
        parts = BytesIO(sealed)
        cost, salt, nonce, tag = (parts.read(size) for size in (1, _SALT_BYTES, _NONCE_BYTES, _TAG_BYTES))
        try:
            cipher = self._cipher(name, int.from_bytes(cost), salt, nonce)
            plain: bytes = cipher.decrypt_and_verify(parts.read(), tag)
        except ValueError:
            raise UnreadableRecord(f"the sealed {name} of {self._account} is damaged") from None
        return plain.decode()

    # pycryptodome gives its ciphers no public type.
    def _cipher(self, name: str, cost: int, salt: bytes, nonce: bytes) -> Any:
        cipher = AES.new(_stretched(self._pickle_key, cost, salt), AES.MODE_GCM, nonce=nonce)
        cipher.update(f"matrix-cryptostore\0{name}\0{self._account.user_id}\0{self._account.device_id}".encode())
        return cipher


# A client that opens its account again, after a take-over or an outage, has waited for it once already.
@lru_cache(maxsize=64)
def _stretched(pickle_key: str, cost: int, salt: bytes) -> bytes:
    # What takes more memory than OpenSSL's limit raises ValueError: a damaged row cannot exhaust the machine. The least
    # that does is a cost of 15, and from 64 on the number itself would be too large.
    return hashlib.scrypt(pickle_key.encode(), salt=salt, dklen=_KEY_BYTES, n=2 ** min(cost, 32), r=8, p=1)
