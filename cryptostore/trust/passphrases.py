"""The bytes that programs make of a passphrase for a file of exported room keys."""

from __future__ import annotations


def spellings(passphrase: str) -> list[bytes]:
    """The passphrase in UTF-8, as Element takes it, and in Latin-1, as matrix-nio does where that has its letters."""
    in_latin = passphrase.encode("latin-1", errors="ignore")
    is_whole = in_latin.decode("latin-1") == passphrase
    return list(dict.fromkeys([passphrase.encode(), *([in_latin] if is_whole else [])]))
