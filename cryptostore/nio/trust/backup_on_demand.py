"""Messages whose key did not come: the backup is asked for it, once, and then they reach the callbacks after all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import vodozemac
from cachetools import LRUCache
from nio import MatrixRoom, MegolmEvent

from cryptostore.errors import BackendUnavailable, CryptoStoreError, HomeserverUnavailable, StorageFull
from cryptostore.logs import logger
from cryptostore.nio.client.pauses import growing_pause
from cryptostore.nio.client.session import Session

from .late_messages import HandOnLate, hand_on_nothing

#: Room id and session id: what the backup knows sessions by.
SessionId = tuple[str, str]

#: Seconds before a session that the backup did not have is asked for again.
ASK_AGAIN: Final = 600.0
#: Messages that wait for their keys; of more, those of the session that has waited longest are given up.
MOST_EVENTS: Final = 1_000
_MOST_ANSWERS: Final = 10_000
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 300.0

#: Errors after which another try may help.
PASSING: Final = (HomeserverUnavailable, BackendUnavailable, StorageFull)

_log: Final = logger(__name__)


class LateEvents:
    """Messages that could not be decrypted, and whose keys the backup may have.

    `fetch` takes a session in and returns whether the backup had it. Nothing is asked before `begin`, and nothing is
    kept while `may_ask` says that there is nothing to ask.
    """

    def __init__(
        self, session: Session, fetch: Callable[[str, str], Awaitable[bool]], may_ask: Callable[[], bool]
    ) -> None:
        self._session = session
        self._fetch = fetch
        self._may_ask = may_ask
        #: The client's.
        self.hand_on: HandOnLate = hand_on_nothing
        self._waiting: dict[SessionId, list[MegolmEvent]] = {}
        self._answered_at: LRUCache[SessionId, float] = LRUCache(_MOST_ANSWERS)
        self._has_begun = False
        self._task: asyncio.Task[None] | None = None
        self._error: BaseException | None = None

    async def note(self, event: Any, room: MatrixRoom) -> None:
        """A room's event, on its way to the callbacks: a message that is still encrypted could not be decrypted."""
        if not isinstance(event, MegolmEvent) or not event.session_id:
            return
        if not self._may_ask() or self._has_key(event, room.room_id):
            return
        key = room.room_id, str(event.session_id)
        if time.monotonic() - self._answered_at.get(key, -ASK_AGAIN) < ASK_AGAIN:
            return
        events = self._waiting.setdefault(key, [])
        if event.event_id not in {each.event_id for each in events}:
            events.append(event)
        while sum(map(len, self._waiting.values())) > MOST_EVENTS:
            del self._waiting[next(iter(self._waiting))]
        if self._has_begun:
            self.begin()

    def begin(self) -> None:
        """The backup can be asked."""
        self._has_begun = True
        if self._waiting and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run())

    def give_up(self) -> None:
        """There is no backup to ask."""
        self._has_begun = False
        self._waiting.clear()

    def check(self) -> None:
        """Raise what a callback raised for a message that became readable."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    async def closing(self) -> None:
        """The client is closed, perhaps by a callback for a message that became readable."""
        self.give_up()
        self._answered_at.clear()
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _has_key(self, event: MegolmEvent, room_id: str) -> bool:
        """Whether the session is there from this message on: then it is something else that is wrong."""
        sessions = self._session.machine.inbound_group_store
        known = sessions.get(room_id, str(event.sender_key), str(event.session_id))
        if known is None:
            return False
        try:
            index = vodozemac.MegolmMessage.from_base64(event.ciphertext).message_index()
        except ValueError:
            return True
        return bool(known.first_known_index <= index)

    async def _run(self) -> None:
        failures = 0
        while self._waiting:
            key = next(iter(self._waiting))
            try:
                await self._look_for(key)
            except PASSING as error:
                failures += 1
                _log.debug("the messages of a session go on waiting for its key: %s", error)
                await asyncio.sleep(growing_pause(failures, _FIRST_PAUSE, _LONGEST_PAUSE))
            except CryptoStoreError as error:
                _log.warning("the key backup is not asked for the keys of messages any more: %s", error)
                self.give_up()
            else:
                failures = 0

    async def _look_for(self, key: SessionId) -> None:
        try:
            is_there = await self._fetch(*key)
        except CryptoStoreError:
            raise
        except Exception as error:  # noqa: BLE001  # one session that makes trouble must not stop the others
            _log.warning("the key backup was not asked for a key: it raised %s", type(error).__name__)
            is_there = False
        self._answered_at[key] = time.monotonic()
        events = self._waiting.pop(key, [])
        # It may have come by itself meanwhile.
        if is_there or any(self._has_key(event, key[0]) for event in events):
            await self._hand_on(key, events)

    async def _hand_on(self, key: SessionId, events: list[MegolmEvent]) -> None:
        try:
            await self.hand_on(key[0], events)
        except PASSING as error:
            # Of the database, or of a callback, which then runs again and again.
            _log.warning("messages of %s became readable and are handed on later: %s", ascii(key[0]), error)
            if self._has_begun and events:
                self._waiting[key] = [*events, *self._waiting.get(key, [])]
            raise
        except CryptoStoreError as error:
            _log.warning("messages of %s became readable and were not handed on: %s", ascii(key[0]), error)
        except Exception as error:  # noqa: BLE001  # a callback's: the next sync raises it, as it does any other one's
            self._error = error
