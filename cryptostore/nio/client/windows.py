"""The timelines that a sync brings: what they change of the rooms is applied first and whole, then callbacks run.

A callback for an early event that answered with the members of that moment would give the room's key to somebody who
was removed later in the same sync.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, NamedTuple

from nio import BadEvent, MatrixRoom, MegolmEvent, RoomEncryptionEvent, RoomMemberEvent, SyncResponse, UnknownBadEvent

from .memberships import while_inside


class RoomCalls(NamedTuple):
    """What a client does with the rooms of a sync, and with their events."""

    #: Apply what a sync says of a room besides its events; it becomes known.
    apply_state: Callable[[str, Any, set[str]], None]
    #: Use the room's key no more: its members changed.
    invalidate_session: Callable[[str], None]
    #: Decrypt an event of a room: the plain one, or None.
    decrypt: Callable[[Any, str, MatrixRoom, set[str]], Any]
    #: Run the callbacks: for an event, for what is not kept, for the account's own notes.
    on_event: Callable[[Any, MatrixRoom], Awaitable[None]]
    on_ephemeral: Callable[[Any, MatrixRoom], Awaitable[None]]
    on_account_data: Callable[[Any, MatrixRoom], Awaitable[None]]
    #: Learn which rooms are encrypted, and the last thing that each said of it.
    learn_encrypted: Callable[[set[str], Mapping[str, RoomEncryptionEvent]], None]
    #: Follow the devices of a room's members.
    follow: Callable[[MatrixRoom], None]


class Windows:
    """Handles the timelines of a sync."""

    def __init__(self, calls: RoomCalls) -> None:
        self._calls = calls

    async def handle(
        self, response: SyncResponse, rooms: Mapping[str, MatrixRoom], user_id: str, held: Collection[str]
    ) -> None:
        """Apply all state, then run the callbacks. Those for the timelines of `held` rooms run another time."""
        encrypted: set[str] = set()
        said: dict[str, RoomEncryptionEvent] = {}
        for room_id, info in response.rooms.join.items():
            self._apply(room_id, info, rooms, encrypted)
            for event in filter(_is_of_the_room, [*info.state, *info.timeline.events]):
                said[room_id] = event
        # Before the first callback: it may send.
        self._calls.learn_encrypted(encrypted, said)
        for room_id, info in response.rooms.join.items():
            room = rooms[room_id]
            if room_id not in held:
                await self._hand_on(room, info.timeline.events, user_id)
            for event in info.ephemeral:
                room.handle_ephemeral_event(event)
                await self._calls.on_ephemeral(event, room)
            for event in info.account_data:
                room.handle_account_data(event)
                await self._calls.on_account_data(event, room)
            self._calls.follow(room)

    def _apply(self, room_id: str, info: Any, rooms: Mapping[str, MatrixRoom], encrypted: set[str]) -> None:
        self._calls.apply_state(room_id, info, encrypted)
        room = rooms[room_id]
        for event in info.timeline.events:
            if isinstance(event, RoomEncryptionEvent):
                encrypted.add(room_id)
            if isinstance(event, RoomMemberEvent):
                if room.handle_membership(event):
                    self._calls.invalidate_session(room_id)
            elif not isinstance(event, MegolmEvent | BadEvent | UnknownBadEvent):
                room.handle_event(event)

    async def _hand_on(self, room: MatrixRoom, events: list[Any], user_id: str) -> None:
        inside = set(while_inside(events, user_id))
        for index, event in enumerate(events):
            plain = self._calls.decrypt(event, room.room_id, room, set())
            if plain is not None:
                events[index] = plain
            if index in inside:
                await self._calls.on_event(events[index], room)


def _is_of_the_room(event: Any) -> bool:
    """Whether this is the state of the room's encryption. Other state keys mean nothing."""
    return isinstance(event, RoomEncryptionEvent) and event.source.get("state_key") == ""
