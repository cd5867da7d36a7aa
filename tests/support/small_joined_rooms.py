"""`/joined_rooms` for the small homeserver."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiohttp import web

from small_homeserver import Device, Request, SmallHomeserver


@dataclass
class JoinedRooms:
    """In which rooms a user is. It is an extension of `server`."""

    server: SmallHomeserver
    #: Rooms that answers lack, although the user is there.
    lacking: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.server.extensions.append(self._answer)

    def _answer(self, device: Device, request: Request) -> web.StreamResponse | None:
        if request.parts != ["joined_rooms"]:
            return None
        members = {room: state.get(("m.room.member", device[0])) for room, state in self.server.state.items()}
        joined = [room for room, event in members.items() if event and event["content"]["membership"] == "join"]
        return web.json_response({"joined_rooms": [room for room in joined if room not in self.lacking]})
