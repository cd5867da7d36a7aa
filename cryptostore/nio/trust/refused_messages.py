"""Messages that were refused for what was out of date of their senders: they are tried again once it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from nio import ErrorResponse, MatrixRoom, MegolmEvent, SyncResponse

from cryptostore.errors import HomeserverUnavailable
from cryptostore.logs import logger
from cryptostore.nio.client.homeserver import Homeserver
from cryptostore.nio.client.session import Session

from .backup_on_demand import PASSING
from .late_messages import HandOnLate, hand_on_nothing
from .requests import Requests

#: Messages that wait at once; of more, the oldest are given up.
MOST_EVENTS: Final = 1_000

_log: Final = logger(__name__)


class RefusedMessages:
    """Waits between a sync and the answer about the senders whose keys had changed. `ask` asks for those keys.

    A restart in between leaves the messages undecrypted: its program was told of them as such.
    """

    def __init__(
        self, session: Session, requests: Requests, homeserver: Homeserver, ask: Callable[[], Awaitable[Any]]
    ) -> None:
        self._session = session
        self._requests = requests
        self._homeserver = homeserver
        self._ask = ask
        #: The client's.
        self.hand_on: HandOnLate = hand_on_nothing
        self._waiting: list[tuple[str, MegolmEvent]] = []

    def opened(self) -> None:
        """An account was opened."""
        self._waiting = []

    async def note(self, event: Any, room: MatrixRoom) -> None:
        """A room's event, on its way to the callbacks: a message that is still encrypted may have been refused."""
        machine = self._session.machine
        if isinstance(event, MegolmEvent) and machine.is_refused(event) and self._is_outdated(event):
            self._waiting = [*self._waiting, (room.room_id, event)][-MOST_EVENTS:]

    async def after_sync(self, _response: SyncResponse) -> None:
        """Ask, and try again."""
        if not self._waiting or not await self._is_answered():
            return
        for room_id in dict.fromkeys(room_id for room_id, _ in self._waiting):
            events = [event for place, event in self._waiting if place == room_id]
            # Those of other rooms go on waiting where a callback raises.
            self._waiting = [each for each in self._waiting if each[0] != room_id]
            try:
                await self.hand_on(room_id, events)
            except (*PASSING, asyncio.CancelledError):
                self._waiting += [(room_id, event) for event in events]
                raise

    async def _is_answered(self) -> bool:
        if any(self._is_outdated(event) for _, event in self._waiting):
            try:
                # nio would ask for ever, and the sync waits.
                async with self._homeserver.within_deadline():
                    with self._requests.reaching():
                        answer = await self._ask()
            except HomeserverUnavailable as error:
                _log.debug("nothing can be asked about the senders of messages at present: %s", error)
                return False
            return not isinstance(answer, ErrorResponse)
        return True

    def _is_outdated(self, event: MegolmEvent) -> bool:
        return event.sender in self._session.machine.users_for_key_query
