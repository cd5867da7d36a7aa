"""Pickle keys, and the keys that are derived from them.

A generated key is `csk1_`, 52 characters of base32 for its 256 bits, and 6 characters of checksum. Everything else is
a passphrase. A generated key cannot be guessed, so HKDF is enough; a passphrase takes scrypt, which is slow on purpose.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import threading
from contextlib import suppress
from functools import lru_cache
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from cryptostore.errors import ConfigurationError
from cryptostore.logs import logger
from cryptostore.records.record import Account

from .aead import required

#: What every generated key begins with.
PREFIX: Final = "csk1_"
#: The binary logarithm of scrypt's N for what is wrapped from now on: 34 MB of memory and a fifth of a second.
COST: Final = 15
#: The costs that are ever derived with. Changed rows must not ask for more than 256 MiB, nor for next to no work.
COSTS: Final = range(10, 19)

#: None at all, and what matrix-nio encrypts with unless it is told otherwise.
PUBLIC_PICKLE_KEYS: Final = frozenset({"", "DEFAULT_KEY"})

_RAW_BYTES: Final = 32
_ALPHABET: Final = frozenset("abcdefghijklmnopqrstuvwxyz234567")
_RAW_CHARACTERS: Final = 52
_CHECKSUM_CHARACTERS: Final = 6
_CHARACTERS: Final = len(PREFIX) + _RAW_CHARACTERS + _CHECKSUM_CHARACTERS
#: A passphrase with less may be guessed.
SAFE_PASSPHRASE_CHARACTERS: Final = 16

_log: Final = logger(__name__)

# Each derivation keeps a core busy and takes 34 MB. One core is left for the rest of the process.
_free: Final = threading.BoundedSemaphore(max(1, (os.cpu_count() or 1) - 1))


def new_pickle_key() -> str:
    """A generated key, from 256 random bits."""
    return _text_of(secrets.token_bytes(_RAW_BYTES))


def is_generated(pickle_key: str) -> bool:
    """Whether this is a generated key; else it is a passphrase. Raises ConfigurationError as `derive` does."""
    return _generated(pickle_key) is not None


def is_weak(pickle_key: str) -> bool:
    """Whether this is a passphrase that is short enough to be guessed. Raises ConfigurationError as `derive` does."""
    return not is_generated(pickle_key) and len(pickle_key) < SAFE_PASSPHRASE_CHARACTERS


def warn_if_weak(account: Account, pickle_key: str) -> None:
    """Log one warning for a weak or public passphrase. Raises ConfigurationError as `derive` does."""
    if pickle_key in PUBLIC_PICKLE_KEYS:
        _log.warning(
            "the pickle key of %s is one that everybody knows; make one of your own with `cryptostore new-key`, bring "
            "it into force with `cryptostore rekey`, and give it to the program",
            account,
        )
    elif is_weak(pickle_key):
        _log.warning(
            "the pickle key of %s is a passphrase of less than %d characters, which can be guessed from a copy of the "
            "database; make a better one with `cryptostore new-key` and change to it with `cryptostore rekey`",
            account,
            SAFE_PASSPHRASE_CHARACTERS,
        )


def derive(pickle_key: str, salt: bytes, cost: int) -> bytes:
    """32 bytes to wrap an account's keys with; the same for the same arguments.

    The pickle key alone decides how: HKDF-SHA256 for a generated key, else scrypt with N = 2^`cost`, which is one of
    `COSTS` and which HKDF ignores. White space and case do not matter in a generated key; a passphrase counts as it is.
    Blocks while as many threads derive as there are cores but one.
    Raises ConfigurationError for a generated key with a typing error, and for a passphrase that UTF-8 cannot express.
    """
    generated = _generated(pickle_key)
    if generated is not None:
        return HKDF(SHA256(), _RAW_BYTES, salt, info=b"cryptostore pickle key").derive(generated)
    return stretched(in_utf8(pickle_key, "the pickle key"), salt, cost)


# Opening an account again, after a take-over or an outage, costs nothing.
@lru_cache(maxsize=64)
def stretched(passphrase: bytes, salt: bytes, cost: int) -> bytes:
    """32 bytes of a passphrase, by scrypt with N = 2^`cost`, r = 8 and p = 3. Blocks as `derive` does."""
    with _free, required("scrypt"):
        return Scrypt(salt=salt, length=_RAW_BYTES, n=2**cost, r=8, p=3).derive(passphrase)


def in_utf8(passphrase: str, what: str) -> bytes:
    """The passphrase's bytes. Raises ConfigurationError for what is no text."""
    # The codec's error carries the passphrase, so it must not become the context of ours.
    with suppress(UnicodeEncodeError):
        return passphrase.encode()
    raise ConfigurationError(f"{what} is not UTF-8 text; give one of whole Unicode characters")


def _generated(pickle_key: str) -> bytes | None:
    """The bits of a generated key, or None for a passphrase. Raises ConfigurationError for a typing error."""
    text = "".join(pickle_key.split()).lower()
    if not text.startswith(PREFIX):
        return None
    _check_characters(text)
    raw = base64.b32decode(text[len(PREFIX) : -_CHECKSUM_CHARACTERS].upper() + "====")
    # Compares the spare bits of the last character as well as the checksum.
    if not secrets.compare_digest(_text_of(raw), text):
        raise _typing_error("its checksum does not match: a character is wrong, or two are swapped")
    return raw


def _check_characters(text: str) -> None:
    for position, character in enumerate(text[len(PREFIX) :], start=len(PREFIX) + 1):
        if character not in _ALPHABET:
            raise _typing_error(f"character {position} (white space not counted) is neither a letter nor one of 2 to 7")
    if len(text) != _CHARACTERS:
        raise _typing_error(f"it has {len(text)} characters (white space not counted) instead of {_CHARACTERS}")


def _typing_error(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"the pickle key begins with {PREFIX}, as generated keys do, but has a typing error: {what}. Copy it again "
        "from where you keep it"
    )


def _text_of(raw: bytes) -> str:
    digest = hashlib.sha256(b"cryptostore pickle key checksum\0" + raw).digest()
    return PREFIX + _base32(raw)[:_RAW_CHARACTERS] + _base32(digest)[:_CHECKSUM_CHARACTERS]


def _base32(raw: bytes) -> str:
    return base64.b32encode(raw).decode().lower()
