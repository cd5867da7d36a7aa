"""The entries of a file of exported room keys, as nio's sessions. Whoever made the file may say anything in it."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import vodozemac
from nio.crypto import InboundGroupSession

from cryptostore import records
from cryptostore.errors import InvalidRecord
from cryptostore.trust import unpadded_base64
from cryptostore.trust.key_backup import MEGOLM, UNKNOWN_KEY

from . import bounds
from .times import now

#: What an exported session key has: version, index, ratchet and public key.
_SESSION_KEY_BYTES: Final = 165


class _Entry(msgspec.Struct):
    """What an entry of a file has, as the specification names it."""

    algorithm: str
    room_id: str
    sender_key: str
    session_id: str
    session_key: str
    # Other clients write entries without these.
    sender_claimed_keys: dict[str, str] = {}
    forwarding_curve25519_key_chain: list[str] | None = None


def exported_session(item: Any) -> InboundGroupSession:
    """The session in an entry, as one that was forwarded: nothing proves that its sender made it.

    Raises ValueError with a reason that quotes nothing of the entry.
    """
    if not isinstance(item, dict) or item.get("algorithm", MEGOLM) != MEGOLM:
        raise ValueError("is of another algorithm" if isinstance(item, dict) else "is no room key")
    try:
        entry = msgspec.convert(item, _Entry)
    except msgspec.ValidationError:
        raise ValueError("lacks what a room key has") from None
    session = _live(entry)
    if session is None:
        raise ValueError("has an id or a key that no client makes")
    if session.id != entry.session_id:
        raise ValueError("has the key of another session")
    return session


def _live(entry: _Entry) -> InboundGroupSession | None:
    # Without a chain it would count as received from its sender.
    chain = entry.forwarding_curve25519_key_chain or [entry.sender_key]
    signing_key = entry.sender_claimed_keys.get("ed25519", UNKNOWN_KEY)
    if len(chain) > bounds.FORWARDERS or any(len(key) > bounds.KEY for key in chain):
        return None
    try:
        # vodozemac may end the program where the length is another one.
        raw = unpadded_base64.decode(entry.session_key, size=_SESSION_KEY_BYTES)
        key = entry.room_id, entry.session_id, entry.sender_key
        # What no database takes would be left out later, and nobody told.
        records.InboundGroupSession(*key, raw, signing_key, tuple(chain), 0, now())
        return InboundGroupSession.import_session(
            entry.session_key, signing_key, entry.sender_key, entry.room_id, chain
        )
    except (InvalidRecord, ValueError, vodozemac.SessionKeyDecodeException):
        return None
