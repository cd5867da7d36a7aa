"""What the rooms of a sync mean for keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from nio import MatrixRoom, MegolmEvent, RoomEncryptionEvent, SyncResponse

from cryptostore.errors import StoreClosed

from .session import Session


class Client(Protocol):
    """The rooms that nio's client knows."""

    rooms: dict[str, MatrixRoom]
    encrypted_rooms: set[str]


class Rooms:
    """Follows who is in encrypted rooms, and decrypts what is said there."""

    def __init__(self, client: Client, session: Session) -> None:
        self._client = client
        self._session = session

    def decrypted(self, event: Any, room_id: str) -> Any:
        """The plain event of a message, or None. Raises StoreClosed if the client was closed by a callback."""
        if not self._session.is_open:
            # nio would give what it cannot decrypt to the callbacks.
            raise StoreClosed("this client was closed while it handled a sync; its events will come again")
        if not isinstance(event, MegolmEvent):
            return None
        event.room_id = room_id
        return self._session.machine.decrypt_message(event)

    def learn_encrypted(self, room_ids: set[str], said: Mapping[str, RoomEncryptionEvent]) -> None:
        """These rooms are encrypted, and what they said of that."""
        self._client.encrypted_rooms.update(room_ids)
        if self._session.is_open:
            self._session.store.save_encrypted_rooms(room_ids)
            for room_id, event in said.items():
                self._session.store.save_rotation(room_id, event.source["content"])

    def follow(self, room: MatrixRoom) -> None:
        """Follow the devices of the members of an encrypted room."""
        if room.encrypted and self._session.is_open:
            self._session.machine.update_tracked_users(room)  # type: ignore[no-untyped-call]  # nio has no annotation

    def note_key_counts(self, response: SyncResponse) -> None:
        """What the homeserver still has of our keys."""
        machine = self._session.machine
        machine.fallback_keys.note_sync(response)
        count = response.device_key_count.signed_curve25519
        if count is not None:
            # Zero, too: nio takes it for an answer that is missing, and a drained device would never recover.
            machine.uploaded_key_count = count

    def note_devices(self, response: SyncResponse) -> None:
        """What a sync says of our keys, and of users with whom no room is shared any more."""
        self.note_key_counts(response)
        left = set(response.device_list.left)
        together: set[str] = set()
        if left:
            rooms = [room for room in self._client.rooms.values() if room.encrypted]
            together = {user for room in rooms for user in left & room.users.keys()}
        self._session.machine.tracking.left(left - together)
        self._session.machine.add_changed_users(together)
