"""What other devices said of room keys that they do not send (`m.room_key.withheld`)."""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import Any, Final

from nio.events import MegolmEvent, UnknownToDeviceEvent

from cryptostore import records
from cryptostore.nio import bounds
from cryptostore.nio.group_sessions import GroupSessionKey
from cryptostore.nio.pickles import if_valid
from cryptostore.nio.standins import stored_text
from cryptostore.nio.times import now

from .buffer import BufferedStorage
from .kept import KeptRecords

#: Session id and sender key. Not the room: no two rooms have one session.
Session = tuple[str, str]

EVENT: Final = "m.room_key.withheld"
BLACKLISTED: Final = "m.blacklisted"
UNVERIFIED: Final = "m.unverified"
NO_OLM: Final = "m.no_olm"

#: Stands for every room and every session: a device that has no Olm session with another can send it no key.
_EVERY: Final = "*"

#: A reason for people, for each code that is sent.
REASONS: Final = {
    BLACKLISTED: "The sender has blocked you.",
    UNVERIFIED: "The sender sends no keys to devices that were not verified.",
    NO_OLM: "Unable to establish a secure channel.",
}


def withheld_by(event: Any) -> records.WithheldKey | None:
    """The record of a to-device event that says why a room key is not sent; None for any other event."""
    if not isinstance(event, UnknownToDeviceEvent) or event.type != EVENT:
        return None
    content = event.source.get("content")
    if not isinstance(content, dict) or not isinstance(content.get("code"), str):
        return None
    named = content | {"room_id": _EVERY, "session_id": _EVERY} if content["code"] == NO_OLM else content
    return if_valid(partial(_record, named, event.sender))


def session_of(withheld: records.WithheldKey) -> GroupSessionKey:
    """The inbound group session whose key was not sent."""
    return withheld.room_id, withheld.session_id, withheld.sender_key


def _record(content: dict[Any, Any], sender: str) -> records.WithheldKey:
    code, reason = (stored_text(content.get(name), bounds.WITHHELD_TEXT) for name in ("code", "reason"))
    room_id, session_id, sender_key = (content.get(name, "") for name in ("room_id", "session_id", "sender_key"))
    return records.WithheldKey(room_id, session_id, sender_key, sender, code, reason, now())


class WithheldKeys(KeptRecords[records.WithheldKey]):
    """What was said of keys that have not come since. Anybody can say it: it is quoted for the messages of who did."""

    def __init__(self, storage: BufferedStorage) -> None:
        super().__init__(storage, records.WithheldKey)
        #: Who said something, by the session; the oldest first.
        self._users: dict[Session, set[str]] = {}
        for row in sorted(self.rows.values(), key=attrgetter("received_at")):
            self._users.setdefault((row.session_id, row.sender_key), set()).add(row.user_id)

    def came(self, said: records.WithheldKey) -> None:
        """A device said why it does not send a key."""
        users = self._users.setdefault((said.session_id, said.sender_key), set())
        if said.user_id not in users and len(users) >= bounds.WITHHELD_SENDERS:
            return
        users.add(said.user_id)
        known = self.rows.get(said.key)
        if known is None or (known.code, known.reason) != (said.code, said.reason):
            self.put(said)
        if len(self._users) > bounds.WITHHELD_KEYS:
            self._forget(next(iter(self._users)))

    def key_came(self, session_id: str, sender_key: str) -> None:
        """A room key has come: nothing that was said of it holds any more."""
        self._forget((session_id, sender_key))
        self._forget((_EVERY, sender_key))

    def about(self, event: MegolmEvent, room_id: str | None = None) -> records.WithheldKey | None:
        """What the sender of a message said of its key, or of all keys of that device."""
        rooms = (room_id or event.room_id, _EVERY)
        for session_id in (event.session_id, _EVERY):
            said = self.rows.get((str(session_id), str(event.sender_key), event.sender))
            if said is not None and said.room_id in rooms:
                return said
        return None

    def _forget(self, session: Session) -> None:
        for user_id in self._users.pop(session, ()):
            self.drop((*session, user_id))
