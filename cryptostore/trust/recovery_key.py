"""Recovery keys: the key of secret storage as a text that a person keeps.

Base58 of 8B 01, the 32 bytes of the key and one byte that makes the parity of all of them even, in groups of four
characters (Matrix specification, appendix "Cryptographic key representation").
"""

from __future__ import annotations

import functools
import operator
from typing import Final

KEY_BYTES: Final = 32

_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VALUES: Final = {character: value for value, character in enumerate(_ALPHABET)}
_PREFIX: Final = b"\x8b\x01"
_BYTES: Final = len(_PREFIX) + KEY_BYTES + 1
_CHARACTERS: Final = 48
#: What the prefix makes every recovery key begin with.
_BEGINNING: Final = "Es"
#: Lengths of a recovery key of which a group was lost or came twice.
_LENGTHS: Final = range(_CHARACTERS - 4, _CHARACTERS + 5)
_GROUP: Final = 4


class NotARecoveryKey(ValueError):
    """The text is no recovery key at all; it may be a passphrase."""


class DamagedRecoveryKey(ValueError):
    """The text was a recovery key before it was mistyped or cut."""


def encode(key: bytes) -> str:
    """The recovery key of a secret storage key. Raises ValueError for a key that is not of 32 bytes."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a recovery key stands for {KEY_BYTES} bytes, not {len(key)}")
    text = _base58(_PREFIX + key + bytes([_parity(_PREFIX + key)]))
    return " ".join(text[start : start + _GROUP] for start in range(0, len(text), _GROUP))


def decode(text: str) -> bytes:
    """The 32 bytes of a recovery key; white space does not matter.

    Raises DamagedRecoveryKey for one with a typing error and NotARecoveryKey for any other text, both ValueErrors that
    show nothing of it. A recovery key of another secret storage is as good as any here; the key description tells.
    """
    text = "".join(text.split())
    if not _looks_like_one(text):
        raise NotARecoveryKey(
            f"this is no recovery key: those have {_CHARACTERS} letters and digits and begin with {_BEGINNING}"
        )
    _check_characters(text)
    number = functools.reduce(lambda total, character: total * len(_ALPHABET) + _VALUES[character], text, 0)
    raw = number.to_bytes(_CHARACTERS, "big")[-_BYTES:]
    if _base58(raw) != text or not raw.startswith(_PREFIX) or _parity(raw):
        raise _damaged("its parity is wrong: a character is wrong, or two are swapped")
    return raw[len(_PREFIX) : -1]


def _looks_like_one(text: str) -> bool:
    is_whole = len(text) == _CHARACTERS
    return text.isascii() and text.isalnum() and (is_whole or (text.startswith(_BEGINNING) and len(text) in _LENGTHS))


def _check_characters(text: str) -> None:
    for position, character in enumerate(text, start=1):
        if character not in _VALUES:
            raise _damaged(
                f"character {position} (white space not counted) is 0, O, I or l, and a recovery key has none of these"
            )
    if len(text) != _CHARACTERS:
        raise _damaged(f"it has {len(text)} characters (white space not counted) instead of {_CHARACTERS}")


def _damaged(what: str) -> DamagedRecoveryKey:
    return DamagedRecoveryKey(f"the recovery key has a typing error: {what}. Copy it again from where you keep it")


def _parity(raw: bytes) -> int:
    return functools.reduce(operator.xor, raw)


def _base58(raw: bytes) -> str:
    """Base58 of bytes that do not begin with a zero."""
    number, text = int.from_bytes(raw, "big"), ""
    while number:
        number, value = divmod(number, len(_ALPHABET))
        text = _ALPHABET[value] + text
    return text
