"""Which distribution an entry point belongs to, as far as it can be said."""

from __future__ import annotations

from importlib import metadata


def distribution_of(entry_point: metadata.EntryPoint) -> tuple[str, str]:
    """The name and the version of its distribution; "?" for what is not there.

    Neither need be there: pip leaves half a dist-info folder behind when it is interrupted.
    """
    try:
        described = entry_point.dist.metadata.json if entry_point.dist else {}
    except FileNotFoundError:
        # So says importlib_metadata, which takes the standard library's place once a library has imported it.
        described = {}
    return str(described.get("name", "?")), str(described.get("version", "?"))
