"""Which Megolm sessions came from a backup on the server. nio's object has no room for that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from weakref import WeakSet

from nio.crypto import InboundGroupSession

_from_backup: Final[WeakSet[InboundGroupSession]] = WeakSet()


def is_from_backup(session: InboundGroupSession) -> bool:
    """Whether the session came from a backup: whoever knows the backup's public key may have made it."""
    return session in _from_backup


def note_origin(session: InboundGroupSession, *, from_backup: bool) -> None:
    """Note where a session came from. Without a note it did not come from a backup."""
    if from_backup:
        _from_backup.add(session)
    else:
        _from_backup.discard(session)


@contextmanager
def as_forwarded(session: InboundGroupSession) -> Iterator[None]:
    """Inside the block nio neither trusts the session's keys nor refuses them, as with one that was forwarded."""
    chain = session.forwarding_chain
    session.forwarding_chain = [*chain, session.sender_key]
    try:
        yield
    finally:
        session.forwarding_chain = chain
