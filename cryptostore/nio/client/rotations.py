"""How long a room's key is used, as the room's `m.room.encryption` says it. nio does not read that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final

from nio.crypto import OutboundGroupSession

from cryptostore import records
from cryptostore.nio.standins import stored_id
from cryptostore.nio.storage import Storage
from cryptostore.records.changes import Changes

_MESSAGES: Final = "rotation_period_msgs"
_MILLISECONDS: Final = "rotation_period_ms"
#: What Element's SDK takes at least, so that a room cannot ask for a key that no message may be sent with, or for a new
#: one with every message for its age.
_LEAST_MESSAGES: Final = 1
_LEAST_AGE: Final = timedelta(hours=1)
#: Canonical JSON has no larger numbers.
_LARGEST: Final = 2**53 - 1


class Rotations:
    """What is stored of each encrypted room, as its settings. A number that is none is as if it were not there."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._settings: dict[str, dict[str, int]] = {}

    def load(self, rooms: Iterable[records.EncryptedRoom]) -> None:
        """These rooms are stored."""
        self._settings = {room.room_id: found for room in rooms if (found := _numbers(room.settings))}

    def learn(self, room_id: str, content: Mapping[str, Any]) -> bool:
        """Keep what a room says. Returns whether that is new."""
        key, said = stored_id(room_id), _numbers(content)
        if said == self._settings.get(key, {}):
            return False
        self._settings[key] = said
        self._storage.write(Changes([self.record(key)]))
        return True

    def record(self, stored: str) -> records.EncryptedRoom:
        """What to store of a room, under its id or what stands in for that."""
        return records.EncryptedRoom(stored, self._settings.get(stored, {}))

    def limit(self, room_id: str, session: OutboundGroupSession) -> None:
        """Let a session end when the room says so, and when it would anyway."""
        said = self._settings.get(stored_id(room_id), {})
        if _MESSAGES in said:
            session.max_messages = min(session.max_messages, max(said[_MESSAGES], _LEAST_MESSAGES))
        if _MILLISECONDS in said:
            age = timedelta(milliseconds=said[_MILLISECONDS])
            session.max_age = min(session.max_age, max(age, _LEAST_AGE))


def _numbers(content: Mapping[str, Any]) -> dict[str, int]:
    found = {name: content.get(name) for name in (_MESSAGES, _MILLISECONDS)}
    return {name: number for name, number in found.items() if type(number) is int and 0 <= number <= _LARGEST}
