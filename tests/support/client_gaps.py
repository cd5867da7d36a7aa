"""Rooms with more messages than a homeserver sends at once, and homeservers that answer oddly for them."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from client_pairs import ALICE, BOB, ROOM, Person
from cryptostore import GapPart, MissedEvents, TimelineGap
from small_homeserver import Json, Request, SmallHomeserver

DEVICE = (ALICE.user_id, ALICE.device_id)


def write(server: SmallHomeserver, texts: list[str], room: str = ROOM) -> None:
    """Plain messages of Alice's."""
    for text in texts:
        content = {"msgtype": "m.text", "body": text}
        server._say(DEVICE, room, "m.room.message", f"transaction of {text} in {room}", content)


def numbered(count: int, first: int = 0) -> list[str]:
    """Texts that tell their order."""
    return [f"message {number}" for number in range(first, first + count)]


def pages(server: SmallHomeserver, user: str = BOB.user_id) -> list[Request]:
    """The requests for messages."""
    return [request for request in server.requests if request.path.endswith("/messages") and request.user == user]


def fault(
    server: SmallHomeserver, answer: Callable[[Request], web.StreamResponse | None], room: str = ROOM
) -> Callable[[Request], web.StreamResponse | None]:
    """Let requests for a room's messages go wrong."""

    def look(request: Request) -> web.StreamResponse | None:
        return answer(request) if request.is_for(f"/rooms/{room}/messages") else None

    server.faults.append(look)
    return look


def refuse(status: int, errcode: str) -> Callable[[Request], web.StreamResponse]:
    """An answer that says no."""
    return lambda _request: web.json_response({"errcode": errcode, "error": "no"}, status=status)


def is_at_rest(person: Person) -> bool:
    """Whether no gap is open."""
    return not person.stored(TimelineGap) and not person.stored(GapPart)


def answering(change: Callable[[Json, Request], Json], server: SmallHomeserver) -> None:
    """Let the server's pages be what `change` makes of them."""
    fault(server, lambda request: web.json_response(change(server._messages(ROOM, request.query), request)))


def causes(person: Person) -> list[str]:
    """Why events were missed."""
    return [row.cause for row in person.stored(MissedEvents)]
