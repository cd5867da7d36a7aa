"""Olm sessions that decrypt, and encrypt nothing more. nio's object has no room for that.

A newer state of such a session was lost with the database that a backup took the place of: encrypting again would use
its ratchet a second time.
"""

from __future__ import annotations

from typing import Final
from weakref import WeakSet

from nio.crypto import Session

_receive_only: Final[WeakSet[Session]] = WeakSet()


def is_receive_only(session: Session) -> bool:
    """Whether nothing may be encrypted with the session."""
    return session in _receive_only


def note_receive_only(session: Session) -> None:
    """Never encrypt with this session again."""
    _receive_only.add(session)
