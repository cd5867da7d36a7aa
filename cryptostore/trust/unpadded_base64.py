"""Unpadded base64, in which Matrix writes keys and signatures (Matrix specification, appendix "Unpadded Base64")."""

from __future__ import annotations

import base64
import binascii
from typing import Any


def encode(raw: bytes) -> str:
    """The base64 of these bytes, without padding."""
    return base64.b64encode(raw).decode().rstrip("=")


def decode(text: Any, *, size: int | None = None) -> bytes:
    """The bytes of a base64 text with or without padding, of which there are `size` if that is given.

    Raises ValueError, which shows nothing of the text.
    """
    if not isinstance(text, str):
        raise ValueError("not a base64 text")
    raw = _decoded(text.rstrip("="))
    if size is not None and len(raw) != size:
        raise ValueError(f"the base64 of {len(raw)} bytes instead of {size}")
    return raw


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not a base64 text") from None
