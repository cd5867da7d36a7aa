"""What plain parts see of nio's client: its own attributes."""

from __future__ import annotations

from typing import Protocol


class Device(Protocol):
    """Who the client is, and where."""

    homeserver: str
    #: What the program named: a user id, or its local part.
    user: str
    #: Empty until it is known.
    user_id: str
    device_id: str | None
    access_token: str
