"""Who measures."""

from __future__ import annotations

from importlib import metadata
from typing import Final

#: The scope of our metrics and spans.
NAME: Final = "cryptostore"


def version() -> str:
    """The version of this distribution."""
    return metadata.version("matrix-cryptostore")
