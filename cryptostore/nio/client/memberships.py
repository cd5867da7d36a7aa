"""When an account was in a room: only what lies inside is its business."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from nio import RoomMemberEvent

JOIN: Final = "join"
OTHER: Final = "other"
UNKNOWN: Final = "unknown"


def own_memberships(events: Iterable[Any], user_id: str) -> list[RoomMemberEvent]:
    """The events that say whether this user is in the room, in their order."""
    return [event for event in events if isinstance(event, RoomMemberEvent) and event.state_key == user_id]


def before(event: RoomMemberEvent) -> str:
    """The user's membership until this event. What somebody leaves without a word of before, they were in."""
    if event.prev_membership is None:
        return JOIN if event.membership in ("leave", "ban") else OTHER
    return JOIN if event.prev_membership == JOIN else OTHER


def after(event: Any, user_id: str, membership: str) -> str:
    """The user's membership from this event on."""
    if not isinstance(event, RoomMemberEvent) or event.state_key != user_id:
        return membership
    return JOIN if event.membership == JOIN else OTHER


def is_outside(membership: str, then: str) -> bool:
    """Whether an event between these two memberships is none of the user's business."""
    return membership == then == OTHER


def at_the_start(events: Iterable[Any], user_id: str) -> str:
    """The user's membership before these events: `unknown` if none of them is about it."""
    own = own_memberships(events, user_id)
    return before(own[0]) if own else UNKNOWN


def while_inside(events: Iterable[Any], user_id: str) -> list[Any]:
    """The positions of those events that lie inside, of a room that this user is in now. Its own joins and leaves
    count."""
    listed = list(events)
    membership = at_the_start(listed, user_id)
    inside = []
    for index, event in enumerate(listed):
        then = after(event, user_id, membership)
        if not is_outside(membership, then):
            inside.append(index)
        membership = then
    return inside
