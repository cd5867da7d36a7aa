"""To-device messages: all that may hold a key is decrypted before the timeline that needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final

from nio import Api, RoomKeyRequest, RoomKeyRequestCancellation, SyncError, SyncResponse
from nio.events import OlmEvent

from cryptostore.errors import CryptoStoreError
from cryptostore.logs import logger

from .device import Device
from .prefetch import Wanted, add_timelines
from .session import Session

#: After how many decrypted to-device events other tasks get their turn.
_TURN: Final = 20
#: A sync whose timeline lacks a key asks for further to-device messages, and for nothing else.
_NO_ROOMS: Final[dict[Any, Any]] = {"room": {"rooms": []}, "presence": {"types": []}, "account_data": {"types": []}}
#: Pages for one sync, at most: strangers may send messages faster than they can be read.
_MOST_PAGES: Final = 1_000
#: Syncs in a row that fail for want of a page before a timeline is handled without it.
_PATIENCE: Final = 5

_log: Final = logger(__name__)


class PageMissingError(Exception):
    """The homeserver answered the request for the next page of to-device messages with `answer`."""

    def __init__(self, answer: SyncError) -> None:
        super().__init__(str(answer))
        self.answer = answer


class ToDevicePages:
    """Reads every key that waits on the homeserver before the messages that need it.

    `send`, `decrypt` and `on_event` are the client's own. `presence` is what a request says of it, and `failures` how
    many syncs failed in a row.
    """

    def __init__(
        self,
        device: Device,
        session: Session,
        *,
        send: Callable[..., Awaitable[Any]],
        decrypt: Callable[[Any], Any],
        on_event: Callable[[Any], Awaitable[None]],
        presence: Callable[[], str | None],
        failures: Callable[[], int],
    ) -> None:
        self._device = device
        self._session = session
        self._send = send
        self._decrypt = decrypt
        self._on_event = on_event
        self._presence = presence
        self._failures = failures

    async def handle(self, response: SyncResponse, held: Collection[str]) -> None:
        """As nio's, but if the timeline lacks a key, what else waits on the homeserver is handled before it, too.

        A homeserver brings the whole timeline, but so many to-device messages at once (Synapse: 100). Asking for more
        says that these have come, so they become durable first. The token stays that of the first page: it is where
        the timeline ends, and messages up to later ones are remembered as handled. Events of `held` rooms, which are
        handled another time, may lack any key.
        """
        await self._handle_page(response)
        if response.to_device_events and (held or self._lacks_a_key(response)):
            with self._session.store.handled.ahead_of_token():
                await self._handle_further_pages(response)

    async def _handle_further_pages(self, response: SyncResponse) -> None:
        token = response.next_batch
        # To the end: what is acknowledged does not come again with the token of the first page.
        for _ in range(_MOST_PAGES):
            page = await self._further_page(token)
            if page is None or not page.to_device_events:
                return
            self._session.statistics.further_pages += 1
            await self._handle_page(page)
            response.to_device_events.extend(page.to_device_events)
            token = page.next_batch
        _log.warning(
            "handled a timeline although more to-device messages are waiting than %d requests bring", _MOST_PAGES
        )

    async def _further_page(self, since: str) -> SyncResponse | None:
        method, path = Api.sync(self._device.access_token, since, filter=_NO_ROOMS, set_presence=self._presence())
        page = await self._send(SyncResponse, method, path)
        if isinstance(page, SyncResponse):
            return page
        if self._failures() < _PATIENCE:
            raise PageMissingError(page)
        _log.warning("handled a timeline without all keys, which the homeserver does not send: %s", page)
        return None

    def _lacks_a_key(self, response: SyncResponse) -> bool:
        wanted = Wanted()
        add_timelines(wanted, response)
        return not self._session.store.are_group_sessions_in_memory(wanted.group_sessions)

    async def _handle_page(self, response: SyncResponse) -> None:
        """Decrypt all ciphertexts before the first callback runs.

        The ids of the new room keys are known only then, and have to be looked up before the timeline is read.
        """
        decrypted = await self._decrypt_all(response)
        await self._session.flusher.settle_offers()
        for index, event in enumerate(list(response.to_device_events)):
            plain = decrypted[index] if index in decrypted else self._decrypt(event)
            if plain is not None:
                response.to_device_events[index] = plain
            known = plain or event
            # As in nio: requests are answered or cancelled without the callbacks. None is what it makes of an event
            # without content, or in an unknown algorithm.
            if known is not None and not isinstance(known, RoomKeyRequest | RoomKeyRequestCancellation):
                await self._on_event(known)

    async def _decrypt_all(self, response: SyncResponse) -> dict[int, Any]:
        decrypted: dict[int, Any] = {}
        for index, event in enumerate(response.to_device_events):
            if isinstance(event, OlmEvent):
                decrypted[index] = self._decrypt(event)
                if len(decrypted) % _TURN == 0:
                    await asyncio.sleep(0)
        return decrypted

    def decrypted(self, event: Any, decrypt: Callable[[Any], Any]) -> Any:
        """What nio's `decrypt` makes of an event, or None for one that made it raise."""
        try:
            return decrypt(event)
        except CryptoStoreError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever a stranger's event made nio raise must not stop the sync
            self._session.statistics.poisoned_events += 1
            sender = getattr(event, "sender", "an unknown sender")
            _log.warning("skipped a to-device event from %s that raised %s", sender, type(error).__name__)
            return None
