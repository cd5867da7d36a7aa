"""Messages that can be read only after their sync was handled: they reach the client's callbacks after all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nio import MegolmEvent

#: Decrypts messages of a room once more, and hands those that can be read to the callbacks. What is done with is taken
#: out of the list, whatever a callback raised; what is left there where this raises one of PASSING is to wait.
HandOnLate = Callable[[str, list[MegolmEvent]], Awaitable[None]]


async def hand_on_nothing(_room_id: str, _events: list[MegolmEvent]) -> None:
    """Takes the place of the client's callbacks until they are known."""
