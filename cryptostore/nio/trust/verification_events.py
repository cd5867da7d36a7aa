"""Events of verifications as they come: between devices, or in a room."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from cryptostore.trust import exchange_contents as contents
from cryptostore.trust.exchange_contents import Flow

_LATEST: Final = 2.0**53


class Incoming(NamedTuple):
    """An event of a verification."""

    event_type: str
    sender: str
    flow: Flow
    #: Empty between devices.
    room_id: str
    content: Mapping[str, Any]
    #: When a request was sent, in seconds since 1970; 0 for what is no request.
    asked_at: float = 0.0


def between_devices(event: Any) -> Incoming | None:
    """What a to-device event says of a verification; None if it says nothing, or what cannot be understood."""
    source = getattr(event, "source", None)
    parts = _parts(source)
    if parts is None or not parts.event_type.startswith(contents.PREFIX):
        return None
    try:
        flow = Flow(_identifier(parts.content, "transaction_id"), is_in_room=False)
    except ValueError:
        return None
    asked_at = _seconds(parts.content.get("timestamp")) if parts.event_type == contents.REQUEST else 0.0
    return Incoming(parts.event_type, parts.sender, flow, "", parts.content, asked_at)


def in_room(event: Any, room_id: str) -> Incoming | None:
    """What an event of a room says of a verification, in the clear or decrypted; None if it says nothing of one."""
    parts = _parts(getattr(event, "source", None))
    if parts is None:
        return None
    if parts.event_type == "m.room.message" and parts.content.get("msgtype") == contents.REQUEST:
        flow = Flow(getattr(event, "event_id", ""), is_in_room=True)
        asked_at = _seconds(getattr(event, "server_timestamp", None))
        return Incoming(contents.REQUEST, parts.sender, flow, room_id, parts.content, asked_at)
    if not parts.event_type.startswith(contents.PREFIX) or parts.event_type == contents.REQUEST:
        return None
    relation = parts.content.get("m.relates_to")
    try:
        event_id = _identifier(relation, "event_id") if isinstance(relation, dict) else ""
    except ValueError:
        return None
    return Incoming(parts.event_type, parts.sender, Flow(event_id, is_in_room=True), room_id, parts.content)


class _Parts(NamedTuple):
    event_type: str
    sender: str
    content: Mapping[str, Any]


def _parts(source: Any) -> _Parts | None:
    if not isinstance(source, dict):
        return None
    event_type, sender, content = source.get("type"), source.get("sender"), source.get("content")
    if isinstance(event_type, str) and isinstance(sender, str) and isinstance(content, dict):
        return _Parts(event_type, sender, content)
    return None


def _identifier(content: Mapping[str, Any], name: str) -> str:
    """A text that can be the key of a record. Raises ValueError."""
    value = contents.text(content, name)
    if "\0" in value:
        raise ValueError(f"{name} holds NUL")
    return value


def _seconds(milliseconds: Any) -> float:
    is_number = isinstance(milliseconds, int | float) and not isinstance(milliseconds, bool)
    # Strangers write numbers that no float holds.
    return milliseconds / 1000 if is_number and 0 <= milliseconds <= _LATEST else 0.0
