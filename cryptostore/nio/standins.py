"""What is stored for what no database can store as it came, where its absence would permit something.

Servers and strangers may send any text: ids over 255 bytes, NUL, lone surrogates, none at all.

    what came                      what is stored                what its absence would permit
    id of an encrypted room        a hash of the id              messages in the clear
    sender of a handled message    a hash of the key             handling the message again
    session or sender of a page    a hash of the id or key       another event with a used message index
    event id, timestamp            always an HMAC                the same
    sync token                     the token, escaped            going on from an older place
    text of a display name         replacement characters        nothing; the device must not be lost for its name
    why a key was withheld         replacement characters        nothing; it is only shown

A device that cannot be stored gets no keys, for it would be new again after each restart. Anything else, such as a room
key for a room of that kind, is left out alone, with a line in the log.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any, Final

from cryptostore.logs import logger
from cryptostore.records import SyncToken
from cryptostore.records.fields import CHECKS, FieldType

from .bounds import DISPLAY_NAME, TOKEN

#: In no id of the Matrix specification. A stranger's id that is such a stand-in already stands for itself.
_HASHED: Final = "cryptostore hash "
#: What an escaped token begins with; a token that begins so is escaped, too.
_ESCAPED: Final = "cryptostore escaped "

_log: Final = logger(__name__)

_UNSTORABLE: Final = re.compile(r"[\x00\ud800-\udfff]")


def stored_id(came: str) -> str:
    """The id as it came, or a hash of one that cannot be stored."""
    try:
        return str(CHECKS[FieldType.IDENTIFIER](came))
    except ValueError:
        return _HASHED + hashlib.sha256(came.encode(errors="surrogatepass")).hexdigest()


def stored_token(came: str) -> str:
    """The token as it came, or escaped. `token_that_came` takes it back."""
    if _UNSTORABLE.search(came) or came.startswith(_ESCAPED):
        return _ESCAPED + json.dumps(came)
    return came


def token_that_came(stored: str) -> str:
    """The token that `stored_token` was given."""
    return str(json.loads(stored.removeprefix(_ESCAPED))) if stored.startswith(_ESCAPED) else stored


def stored_name(came: Any) -> str:
    """A display name as it may be stored: a server may send anything for it."""
    return stored_text(came, DISPLAY_NAME)


def stored_text(came: Any, length: int) -> str:
    """The beginning of a text that only people read, as it may be stored."""
    return _UNSTORABLE.sub("\ufffd", came[:length]) if isinstance(came, str) else ""


def token_record(came: str) -> SyncToken | None:
    """What to store of a sync token; None for one that is too long, before which the place stays where it was."""
    if len(came) <= TOKEN:
        return SyncToken(stored_token(came))
    _log.warning("a sync token of %d characters was not stored, and the one before it stays", len(came))
    return None


class EncryptedRooms(set[str]):
    """Ids of encrypted rooms. Those that stand-ins are stored for are found under their own ids."""

    def __init__(self, stored: Iterable[str]) -> None:
        super().__init__(stored)

    def __contains__(self, room_id: object) -> bool:
        return super().__contains__(room_id) or super().__contains__(stored_id(str(room_id)))

    def discard(self, room_id: object) -> None:
        """Forget a room, under either id."""
        super().discard(str(room_id))
        super().discard(stored_id(str(room_id)))
