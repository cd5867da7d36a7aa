"""Syncs: one batch each, its token included, when all of it was handled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from nio import LocalProtocolError, RoomKeyRequest, RoomKeyRequestCancellation, SyncError, SyncResponse
from nio.events import OlmEvent

from cryptostore.errors import CryptoStoreError

from .identity import IdentityClient

#: After how many decrypted to-device events other tasks get their turn.
_TURN: Final = 20
#: Seconds between two syncs that the homeserver refuses, at most.
_LONGEST_PAUSE: Final = 30.0

_log: Final = logging.getLogger(__name__)

#: The clients whose syncs are being handled by the task that asks, or by one that started it.
_handling: ContextVar[frozenset[int]] = ContextVar("handling", default=frozenset())


class SyncingClient(IdentityClient):
    """A client whose token never runs ahead of its keys."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._one_sync = asyncio.Lock()
        self._is_handling = False
        #: Rooms are in no store: the first sync of a process brings them.
        self._has_rooms = False
        self._failed_syncs = 0

    async def close(self) -> None:
        self._has_rooms = False
        await super().close()

    async def sync(
        self,
        timeout: int | None = 0,  # noqa: ASYNC109  # nio's own parameter
        sync_filter: Any = None,
        since: str | None = None,
        full_state: bool | None = None,
        set_presence: str | None = None,
    ) -> SyncResponse | SyncError:
        """As nio's; the first sync of a process asks for the full state, and one sync waits for another.

        The answer's keys and token are one batch, durable when this returns. If a callback raises, or the task is
        cancelled, the token stays where it was and the server sends the events again.

        Raises LocalProtocolError inside a callback: the request would acknowledge events that are not handled yet.
        Raises what `check_identity` and `flush` raise.
        """
        if self._is_handling and id(self) in _handling.get():
            raise LocalProtocolError("sync() inside a callback would acknowledge events that are not handled yet")
        async with self._one_sync:
            await self.check_identity()
            full_state = True if not self._has_rooms else full_state
            response: SyncResponse | SyncError = await super().sync(
                timeout, sync_filter, since, full_state, set_presence
            )
            self._failed_syncs = self._failed_syncs + 1 if isinstance(response, SyncError) else 0
            return response

    async def sync_forever(
        self,
        timeout: int | None = None,  # noqa: ASYNC109  # nio's own parameter
        sync_filter: Any = None,
        since: str | None = None,
        full_state: bool | None = None,
        loop_sleep_time: int | None = None,
        first_sync_filter: Any = None,
        set_presence: str | None = None,
    ) -> None:
        """As nio's, but when it ends, by whatever error, nothing that it started goes on.

        Raises FencedOut, which names the process that has the account now, BackendUnavailable and StorageFull, after
        which it may be called again, and what callbacks raise.
        """
        presence = set_presence or self._presence
        try:
            if not self._stop_sync_forever:
                first_filter = sync_filter if first_sync_filter is None else first_sync_filter
                # Alone, so that the state is complete before anything is asked because of it.
                response = await self.sync(0, first_filter, since, full_state, presence)
                await self.run_response_callbacks([response])
                await self._run_together(self._errands())
                await self._end_of_round(loop_sleep_time)
            while not self._stop_sync_forever:
                sync = self.sync(timeout, sync_filter, None, None, presence)
                await self._run_together([sync, self.send_to_device_messages(), *self._errands()])
                await self._end_of_round(loop_sleep_time)
        finally:
            self._stop_sync_forever = False

    async def send_to_device_messages(self) -> list[Any]:
        """As nio's, but when one message fails the others are awaited before its error is raised."""
        messages = list(self.outgoing_to_device_messages)
        outcomes = await asyncio.gather(*map(self.to_device, messages), return_exceptions=True)
        return [_raised(outcome) for outcome in outcomes]

    def _errands(self) -> list[Coroutine[Any, Any, Any]]:
        """The requests that nio makes between syncs."""
        errands: list[Coroutine[Any, Any, Any]] = []
        if self.should_upload_keys:
            errands.append(self.keys_upload())
        if self.should_query_keys:
            errands.append(self.keys_query())
        if self.should_claim_keys:
            errands.append(self.keys_claim(self.get_users_for_key_claiming()))
        return errands

    async def _run_together(self, coroutines: list[Coroutine[Any, Any, Any]]) -> None:
        tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
        try:
            for response in asyncio.as_completed(tasks):
                await self.run_response_callbacks([await response])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _end_of_round(self, sleep_milliseconds: int | None) -> None:
        self.synced.set()
        self.synced.clear()
        # nio would ask a homeserver that refuses again and again without a pause.
        pause = min(0.1 * 2**self._failed_syncs, _LONGEST_PAUSE) if self._failed_syncs else 0.0
        await asyncio.sleep(max(pause, (sleep_milliseconds or 0) / 1000))

    async def _handle_sync(self, response: SyncResponse) -> None:
        before = self.next_batch
        if before == response.next_batch:
            # Nothing new, but somebody may have used keys up.
            self._note_key_count(response)
            return
        try:
            with self._handling():
                # First of all: a callback that sends must not use what is out of date.
                self.machine.add_changed_users(set(response.device_list.changed))
                await super()._handle_sync(response)
        except BaseException:
            self.next_batch = before
            raise
        self._has_rooms = True
        self.production_store.complete_sync(response.next_batch)
        # From here on nothing is undone: all of it was handled, whether or not the database is there now.
        await self.flush()

    def _note_key_count(self, response: SyncResponse) -> None:
        count = response.device_key_count.signed_curve25519
        if count is not None:
            # Zero, too: nio takes it for an answer that is missing, and a drained device would never recover.
            self.machine.uploaded_key_count = count

    def _handle_olm_events(self, response: SyncResponse) -> None:
        self._note_key_count(response)
        together = {user for room in self.rooms.values() if room.encrypted for user in room.users}
        left = set(response.device_list.left)
        self.machine.tracking.left(left - together)
        self.machine.add_changed_users(left & together)

    @contextmanager
    def _handling(self) -> Iterator[None]:
        token = _handling.set(_handling.get() | {id(self)})
        self._is_handling = True
        try:
            yield
        finally:
            self._is_handling = False
            _handling.reset(token)

    async def _handle_to_device(self, response: SyncResponse) -> None:
        """As nio's, but ciphertexts are decrypted before the first callback runs.

        The ids of the new room keys are known only then, and have to be looked up before the timeline is read.
        """
        decrypted: dict[int, Any] = {}
        for index, event in enumerate(response.to_device_events):
            if isinstance(event, OlmEvent):
                decrypted[index] = self._handle_decrypt_to_device(event)
                if len(decrypted) % _TURN == 0:
                    await asyncio.sleep(0)
        await self._buffer().settle_offers()
        for index, event in enumerate(list(response.to_device_events)):
            plain = decrypted[index] if index in decrypted else self._handle_decrypt_to_device(event)
            if plain is not None:
                response.to_device_events[index] = plain
            # As in nio: these are answered or cancelled without the callbacks.
            if not isinstance(plain or event, RoomKeyRequest | RoomKeyRequestCancellation):
                await self._on_to_device(plain or event)

    def _handle_decrypt_to_device(self, to_device_event: Any) -> Any:
        try:
            return super()._handle_decrypt_to_device(to_device_event)
        except CryptoStoreError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever a stranger's event made nio raise must not stop the sync
            self.statistics.poisoned_events += 1
            sender = getattr(to_device_event, "sender", "nobody")
            _log.warning("skipped a to-device event from %s that raised %s", sender, type(error).__name__)
            return None


def _raised(outcome: Any) -> Any:
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome
