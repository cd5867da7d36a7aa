"""Syncs: one batch each, its token included, when all of it was handled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from nio import LocalProtocolError, MatrixRoom, MegolmEvent, SyncError, SyncResponse

from cryptostore.errors import AccessTokenRejected, StoreClosed
from cryptostore.logs import logger
from cryptostore.records import MissedEvents

from .answers import is_token_rejected
from .gap_client import Asked, GapHandling, GapSettings, MissedCallback
from .to_device import PageMissingError, ToDeviceClient
from .windows import RoomCalls, Windows

#: Seconds between two syncs that the homeserver refuses, at most.
_LONGEST_PAUSE: Final = 30.0

_log: Final = logger(__name__)


class SyncingClient(ToDeviceClient):
    """A client whose token never runs ahead of its keys."""

    def __init__(self, *args: Any, gaps: GapSettings, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._one_sync = asyncio.Lock()
        calls = RoomCalls(
            apply_state=self._handle_joined_state,
            invalidate_session=self._invalidate_session_for_member_event,
            decrypt=self._handle_timeline_event,
            on_event=self._on_event,
            on_ephemeral=self._on_ephemeral,
            on_account_data=self._on_room_account_data,
            learn_encrypted=self._learn_encrypted,
            follow=self._follow,
        )
        self._windows = Windows(calls)
        self._gaps = GapHandling(self, gaps, calls, self._handling)

    async def close(self) -> None:
        self._gaps.has_rooms = False
        await super().close()

    def add_missed_events_callback(self, callback: MissedCallback) -> None:
        """Call `callback` with a `MissedEvents` for events of a room that reach no other callback, with the cause.

        Each is kept in the database until all these callbacks have returned for it, also over restarts. They run
        between syncs, and may be functions or coroutine functions.
        """
        self._gaps.add_callback(callback)

    @property
    def missed_events(self) -> list[MissedEvents]:
        """What no callback for missed events was told yet. Raises StoreClosed if the client is not open."""
        return list(self.production_store.gaps.missed.rows.values())

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
        cancelled, the token stays where it was and the server sends the events again. What the homeserver left out of
        a timeline is asked for after that; events of such a room that the answer brings are neither decrypted nor
        handed on with it, but with those before them. Outside of `sync_forever` this returns when that is done; a
        room that the homeserver does not answer for at present is left to the next sync.

        Nothing is asked before `check_identity` has had an answer; what it got instead is the SyncError returned.

        Raises LocalProtocolError inside a callback: the request would acknowledge events that are not handled yet.
        Raises what `check_identity`, `check_ownership` and `flush` raise.
        """
        if self._is_in_callback():
            raise LocalProtocolError("sync() inside a callback would acknowledge events that are not handled yet")
        async with self._one_sync:
            full_state = True if not self._gaps.has_rooms else full_state
            response = await self._sync_once(timeout, sync_filter, since, full_state, set_presence)
            self._failed_syncs = self._failed_syncs + 1 if isinstance(response, SyncError) else 0
            await self._check_ownership_after(response)
            if isinstance(response, SyncResponse):
                await self._gaps.fill()
            return response

    async def _check_ownership_after(self, response: SyncResponse | SyncError) -> None:
        if isinstance(response, SyncError):
            # Another process that logs in makes this one's token void.
            await self.check_ownership()
        elif self.store is not None:
            await self._buffer().check_ownership_if_due()

    async def _sync_once(self, *how: Any) -> SyncResponse | SyncError:
        # A sync acknowledges messages that another database's keys may be for.
        if self.logged_in and (answer := await self.check_identity()) is not None:
            return SyncError(answer.message, answer.status_code)
        _, sync_filter, since, *_ = how
        self._gaps.asked = Asked(since or self.next_batch or self.loaded_sync_token or "", sync_filter)
        try:
            response: SyncResponse | SyncError = await super().sync(*how)
        except PageMissingError as error:
            return error.answer
        finally:
            self._gaps.asked = None
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
        """As nio's, but when it ends, with any error, everything that it started has ended too.

        Raises FencedOut, which names the process that has the account now, DatabaseWentBack, AccessTokenRejected, after
        which `login_or_restore` logs in again, BackendUnavailable and StorageFull, after which it may be called again,
        and what callbacks raise. A sync that the homeserver refuses otherwise is logged and repeated.
        """
        if not self.logged_in:
            raise LocalProtocolError("Not logged in.")
        presence = set_presence or self._presence
        try:
            await self.open_restored()
            rounds = self._rounds(timeout, sync_filter, since, full_state, loop_sleep_time, first_sync_filter, presence)
            await self._gaps.fill_beside(rounds)
        except LocalProtocolError as error:
            if self.logged_in:
                raise
            # nio forgets a token after a soft logout, and then asks nothing any more.
            raise AccessTokenRejected("the homeserver has logged this device out") from error
        finally:
            self._stop_sync_forever = False

    async def _rounds(
        self,
        timeout: int | None,  # noqa: ASYNC109  # nio's own parameter
        sync_filter: Any,
        since: str | None,
        full_state: bool | None,
        loop_sleep_time: int | None,
        first_sync_filter: Any,
        presence: str | None,
    ) -> None:
        if not self._stop_sync_forever:
            first_filter = sync_filter if first_sync_filter is None else first_sync_filter
            # Alone, so that the state is complete before anything is asked because of it.
            await self._run_together([self.sync(0, first_filter, since, full_state, presence)])
            await self._run_together(self._errands())
            await self._end_of_round(loop_sleep_time)
        while not self._stop_sync_forever:
            sync = self.sync(timeout, sync_filter, None, None, presence)
            await self._run_together([sync, self.send_to_device_messages(), *self._errands()])
            await self._end_of_round(loop_sleep_time)

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
                answer = await response
                await self.run_response_callbacks([answer])
                if isinstance(answer, SyncError):
                    self._note_failure(answer)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _note_failure(self, answer: SyncError) -> None:
        if is_token_rejected(answer):
            raise AccessTokenRejected(f"the homeserver does not accept the access token any more: {answer}")
        _log.warning("%d syncs failed in a row, the last one with %s", self._failed_syncs, answer)

    async def _end_of_round(self, sleep_milliseconds: int | None) -> None:
        self.synced.set()
        self.synced.clear()
        # nio would ask a homeserver that refuses again and again without a pause.
        pause = min(0.1 * 2 ** min(self._failed_syncs, 10), _LONGEST_PAUSE) if self._failed_syncs else 0.0
        await asyncio.sleep(max(pause, (sleep_milliseconds or 0) / 1000))

    async def _handle_sync(self, response: SyncResponse) -> None:
        if self._is_in_callback():
            # A further page of the sync that is being handled.
            return
        async with self._gaps.turn():
            await self._handle_alone(response)

    async def _handle_alone(self, response: SyncResponse) -> None:
        before, store = self.next_batch, self.production_store
        if before == response.next_batch:
            # Nothing new, but somebody may have used keys up.
            self._note_key_count(response)
            return
        plan = self._gaps.plan(response)
        self._held = plan.held
        try:
            with self._handling():
                # First of all: a callback that sends must not use what is out of date.
                self.machine.add_changed_users(set(response.device_list.changed))
                await super()._handle_sync(response)
            if self.store is not store:
                raise StoreClosed("this client was closed while it handled a sync; its events will come again")
        except BaseException:
            self.next_batch = before
            raise
        self._gaps.keep(plan)
        store.complete_sync(response.next_batch)
        # From here on nothing is undone: all of it was handled, whether or not the database is there now.
        await self.flush()

    async def _handle_joined_rooms(self, response: SyncResponse) -> None:
        await self._windows.handle(response, self.rooms, self.user_id, self._held)

    def _learn_encrypted(self, room_ids: set[str]) -> None:
        self.encrypted_rooms.update(room_ids)
        if self.store is not None:
            self.store.save_encrypted_rooms(room_ids)

    def _follow(self, room: MatrixRoom) -> None:
        if room.encrypted and self.olm is not None:
            self.olm.update_tracked_users(room)

    def _handle_timeline_event(self, event: Any, room_id: str, *_others: Any) -> Any:
        """Decrypt an event. What it changes of the room was applied before: see `Windows`."""
        if self.store is None:
            # nio would give what it cannot decrypt to the callbacks.
            raise StoreClosed("this client was closed while it handled a sync; its events will come again")
        if not isinstance(event, MegolmEvent):
            return None
        event.room_id = room_id
        return self.machine.decrypt_message(event)

    def _note_key_count(self, response: SyncResponse) -> None:
        self.machine.fallback_keys.note_sync(response)
        count = response.device_key_count.signed_curve25519
        if count is not None:
            # Zero, too: nio takes it for an answer that is missing, and a drained device would never recover.
            self.machine.uploaded_key_count = count

    def _handle_olm_events(self, response: SyncResponse) -> None:
        self._note_key_count(response)
        left = set(response.device_list.left)
        together: set[str] = set()
        if left:
            together = {user for room in self.rooms.values() if room.encrypted for user in left & room.users.keys()}
        self.machine.tracking.left(left - together)
        self.machine.add_changed_users(together)


def _raised(outcome: Any) -> Any:
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome
