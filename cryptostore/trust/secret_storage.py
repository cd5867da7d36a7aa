"""Secret storage: secrets in a user's account data, encrypted with a key that the homeserver does not have.

Matrix specification, "Secrets", algorithm `m.secret_storage.v1.aes-hmac-sha2`. What clients write differs in padding,
and account data that was deleted has the content `{}`.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import string
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Self

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from . import unpadded_base64

ALGORITHM: Final = "m.secret_storage.v1.aes-hmac-sha2"
KEY_BYTES: Final = 32
#: The account data that names the default key, as `{"key": key id}`.
DEFAULT_KEY: Final = "m.secret_storage.default_key"
#: What the type of a key description begins with; the key id follows.
KEY_DESCRIPTION: Final = "m.secret_storage.key."

_PBKDF2: Final = "m.pbkdf2"
_NEW_ITERATIONS: Final = 500_000
#: Two seconds of one core. A server could ask for any number, and a client would never come back.
_MOST_ITERATIONS: Final = 5_000_000
_BITS: Final = range(128, 1024 + 1, 8)
_DEFAULT_BITS: Final = 256
_IV_BYTES: Final = 16
_MAC_BYTES: Final = 32
_ID_CHARACTERS: Final = string.ascii_letters + string.digits
_ID_LENGTH: Final = 32


class WrongSecretStorageKey(ValueError):
    """The key is sound, but not the one that this was encrypted with."""


@dataclass(frozen=True, slots=True)
class Passphrase:
    """How a secret storage key is derived from a passphrase. Raises ValueError for what nobody should derive with."""

    salt: str
    iterations: int = _NEW_ITERATIONS
    bits: int = _DEFAULT_BITS

    def __post_init__(self) -> None:
        if not 1 <= self.iterations <= _MOST_ITERATIONS:
            raise ValueError(
                f"the secret storage asks for {self.iterations} iterations of PBKDF2, and 1 to {_MOST_ITERATIONS} are "
                "made; use the recovery key instead of the passphrase"
            )
        if self.bits not in _BITS:
            raise ValueError(
                f"the secret storage asks for a key of {self.bits} bits, and whole bytes of 128 to 1024 bits are made; "
                "use the recovery key instead of the passphrase"
            )

    @classmethod
    def new(cls) -> Self:
        """A new salt, and as many iterations as other clients of today make."""
        return cls(_random_text())

    def derive(self, passphrase: str) -> bytes:
        """The key of this passphrase. Takes a core for up to two seconds, without holding the interpreter.

        Raises ValueError for a passphrase that UTF-8 cannot express.
        """
        # The codec's error carries the passphrase, so it must not become the context of ours.
        with suppress(UnicodeEncodeError):
            raw, salt = passphrase.encode(), self.salt.encode()
            return hashlib.pbkdf2_hmac("sha512", raw, salt, self.iterations, self.bits // 8)
        raise ValueError("the passphrase or its salt is not of whole Unicode characters")

    def content(self) -> dict[str, Any]:
        """What the key description holds of it."""
        return {"algorithm": _PBKDF2, "salt": self.salt, "iterations": self.iterations, "bits": self.bits}

    @classmethod
    def parse(cls, content: Any) -> Self:
        """What a key description holds. Raises ValueError for another algorithm and for values of other types."""
        if not isinstance(content, dict) or content.get("algorithm") != _PBKDF2:
            raise ValueError(f"the secret storage derives its key in another way than {_PBKDF2}; use the recovery key")
        salt, iterations = content.get("salt"), content.get("iterations")
        bits = content.get("bits", _DEFAULT_BITS)
        if not isinstance(salt, str) or type(iterations) is not int or type(bits) is not int:
            raise ValueError("the secret storage's passphrase has no salt, iterations or bits of the right types")
        return cls(salt, iterations, bits)


@dataclass(frozen=True, slots=True)
class KeyDescription:
    """What account data says of a secret storage key: enough to check it, not enough to have it.

    Without `iv` and `mac`, which are optional, no key can be refused before a secret is opened with it.
    """

    key_id: str
    iv: bytes | None = None
    mac: bytes | None = None
    #: As it came; `Passphrase.parse` says whether it can be used.
    passphrase: Any = None
    name: str | None = None

    @classmethod
    def make(cls, key: bytes, passphrase: Passphrase | None = None) -> Self:
        """The description, under a new key id, of a new key; `passphrase` is what the key was derived with, if so."""
        iv = _new_iv()
        return cls(_random_text(), iv, _mac_of_zeros(key, iv), passphrase.content() if passphrase else None)

    @classmethod
    def parse(cls, key_id: str, content: Any) -> Self | None:
        """The description in the account data of this key id; None where there is none, as in `{}`.

        Raises ValueError for an algorithm that is not known, and for damage.
        """
        if not isinstance(content, dict) or not content:
            return None
        if content.get("algorithm") != ALGORITHM:
            raise ValueError(f"the secret storage key {key_id!r} is for another algorithm than {ALGORITHM}")
        name = content.get("name")
        return cls(
            key_id,
            _optional(content, "iv", _IV_BYTES),
            _optional(content, "mac", _MAC_BYTES),
            content.get("passphrase"),
            name if isinstance(name, str) else None,
        )

    @property
    def event_type(self) -> str:
        """The type of the account data that holds it."""
        return KEY_DESCRIPTION + self.key_id

    def content(self) -> dict[str, Any]:
        """The account data's content."""
        fields = {
            "algorithm": ALGORITHM,
            "name": self.name,
            "iv": None if self.iv is None else unpadded_base64.encode(self.iv),
            "mac": None if self.mac is None else unpadded_base64.encode(self.mac),
            "passphrase": self.passphrase,
        }
        return {name: value for name, value in fields.items() if value is not None}

    @property
    def can_check(self) -> bool:
        """Whether `check` tells anything. Where not, only a secret's own MAC does."""
        return self.iv is not None and self.mac is not None

    def check(self, key: bytes) -> None:
        """Raise WrongSecretStorageKey if this is surely not the key."""
        if self.iv is None or self.mac is None:
            return
        if not hmac.compare_digest(_mac_of_zeros(key, self.iv), self.mac):
            raise WrongSecretStorageKey(
                f"the recovery key or passphrase is not the one of the secret storage key {self.key_id!r}: it is "
                "without a typing error, but of another account, or of a secret storage that was replaced"
            )

    def from_passphrase(self, passphrase: str) -> bytes:
        """The key, derived from a passphrase and checked. Blocks as `Passphrase.derive` does.

        Raises WrongSecretStorageKey for another passphrase, and ValueError where this key has none.
        """
        if self.passphrase is None:
            raise ValueError(f"the secret storage key {self.key_id!r} has no passphrase; use the recovery key")
        key = Passphrase.parse(self.passphrase).derive(passphrase)
        self.check(key)
        return key


def new_key() -> bytes:
    """A new secret storage key: 32 random bytes."""
    return secrets.token_bytes(KEY_BYTES)


def default_key_id(content: Any) -> str | None:
    """The key id in the content of `m.secret_storage.default_key`; None where there is none, as in `{}`."""
    key_id = content.get("key") if isinstance(content, dict) else None
    return key_id if isinstance(key_id, str) and key_id else None


def encrypt(name: str, key: bytes, secret: bytes) -> dict[str, str]:
    """A secret's `iv`, `ciphertext` and `mac`, bound to its name; each call gives others."""
    aes_key, mac_key = _derived(key, name)
    iv = _new_iv()
    ciphertext = _aes_ctr(aes_key, iv, secret)
    mac = hmac.digest(mac_key, ciphertext, "sha256")
    parts = {"iv": iv, "ciphertext": ciphertext, "mac": mac}
    return {part: unpadded_base64.encode(raw) for part, raw in parts.items()}


def decrypt(name: str, key: bytes, content: Any) -> bytes:
    """What `encrypt`, or another client, was given.

    Raises WrongSecretStorageKey if the MAC does not match, by another key or by damage, and ValueError for content that
    is no encrypted secret.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{name} in secret storage is no encrypted secret")
    try:
        iv = unpadded_base64.decode(content.get("iv"), size=_IV_BYTES)
        mac = unpadded_base64.decode(content.get("mac"), size=_MAC_BYTES)
        ciphertext = unpadded_base64.decode(content.get("ciphertext"))
    except ValueError as error:
        raise ValueError(f"{name} in secret storage is no encrypted secret: {error}") from None
    aes_key, mac_key = _derived(key, name)
    if not hmac.compare_digest(hmac.digest(mac_key, ciphertext, "sha256"), mac):
        raise WrongSecretStorageKey(f"{name} in secret storage was encrypted with another key, or changed since")
    return _aes_ctr(aes_key, iv, ciphertext)


def seal(name: str, key_id: str, key: bytes, secret: bytes) -> dict[str, Any]:
    """The whole account data of a secret of 32 bytes: clients write those as unpadded base64, and encrypt that text."""
    return {"encrypted": {key_id: encrypt(name, key, unpadded_base64.encode(secret).encode())}}


def open_secret(name: str, key_id: str, key: bytes, content: Any) -> bytes | None:
    """The 32 bytes of a secret in account data, or None if none is encrypted for this key there, as in `{}`.

    Raises WrongSecretStorageKey as `decrypt` does, and ValueError for what is no secret of 32 bytes.
    """
    entry = _entry(key_id, content)
    if entry is None:
        return None
    text = decrypt(name, key, entry)
    # The codec's error carries the secret, so it must not become the context of ours.
    with suppress(ValueError):
        return unpadded_base64.decode(text.decode(), size=KEY_BYTES)
    raise ValueError(f"{name} in secret storage is no secret of {KEY_BYTES} bytes")


def _entry(key_id: str, content: Any) -> Any:
    encrypted = content.get("encrypted") if isinstance(content, dict) else None
    return encrypted.get(key_id) if isinstance(encrypted, dict) else None


def _derived(key: bytes, name: str) -> tuple[bytes, bytes]:
    """The AES key and the MAC key for one name."""
    both = HKDF(SHA256(), 64, salt=bytes(32), info=name.encode()).derive(key)
    return both[:32], both[32:]


def _mac_of_zeros(key: bytes, iv: bytes) -> bytes:
    aes_key, mac_key = _derived(key, "")
    return hmac.digest(mac_key, _aes_ctr(aes_key, iv, bytes(32)), "sha256")


def _aes_ctr(key: bytes, iv: bytes, text: bytes) -> bytes:
    context = Cipher(AES256(key), CTR(iv)).encryptor()
    return context.update(text) + context.finalize()


def _new_iv() -> bytes:
    """16 random bytes without bit 63: some implementations count in the lower 64 bits alone, and must not overflow."""
    iv = bytearray(os.urandom(_IV_BYTES))
    iv[8] &= 0x7F
    return bytes(iv)


def _optional(content: dict[str, Any], field: str, size: int) -> bytes | None:
    if content.get(field) is None:
        return None
    try:
        return unpadded_base64.decode(content[field], size=size)
    except ValueError as error:
        raise ValueError(f"the {field} of a secret storage key's description is damaged: {error}") from None


def _random_text() -> str:
    return "".join(secrets.choice(_ID_CHARACTERS) for _ in range(_ID_LENGTH))
