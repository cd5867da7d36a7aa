"""The bytes that programs make of a passphrase for a file of exported room keys."""

from __future__ import annotations

from contextlib import suppress

from cryptostore.errors import ConfigurationError


def in_utf8(passphrase: str) -> bytes:
    """The passphrase as Element takes it. Raises ConfigurationError for what is no text."""
    # The codec's error carries the passphrase, so it must not become the context of ours.
    with suppress(UnicodeEncodeError):
        return passphrase.encode()
    raise ConfigurationError("the passphrase is not UTF-8 text")


def spellings(passphrase: str) -> list[bytes]:
    """The passphrase in UTF-8, as Element takes it, and in Latin-1, as matrix-nio does where that has its letters.

    Raises as `in_utf8`.
    """
    in_latin = passphrase.encode("latin-1", errors="ignore")
    is_whole = in_latin.decode("latin-1") == passphrase
    return list(dict.fromkeys([in_utf8(passphrase), *([in_latin] if is_whole else [])]))
