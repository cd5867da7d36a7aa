"""One sync: one batch, its token included, when all of it was handled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Protocol

from nio import ErrorResponse, LocalProtocolError, MatrixRoom, SyncError, SyncResponse

from cryptostore.errors import StoreClosed

from .gap_client import Asked, GapHandling
from .handling import Handling
from .rooms import Rooms
from .session import Session
from .to_device import PageMissingError

Synced = SyncResponse | SyncError


class Client(Protocol):
    """Where nio's client is in its syncs."""

    access_token: str
    next_batch: str
    loaded_sync_token: str
    rooms: dict[str, MatrixRoom]

    async def check_identity(self) -> ErrorResponse | None:
        """Make sure that the account is the device's."""

    async def flush(self) -> None:
        """Make everything durable."""


class Syncs:
    """Syncs whose token never runs ahead of their keys. `ask` and `handle` are nio's own."""

    def __init__(
        self,
        client: Client,
        session: Session,
        handling: Handling,
        gaps: GapHandling,
        rooms: Rooms,
        ask: Callable[..., Awaitable[Synced]],
        handle: Callable[[SyncResponse], Awaitable[None]],
    ) -> None:
        self._client = client
        self._session = session
        self._handling = handling
        self._gaps = gaps
        self._rooms = rooms
        self._ask = ask
        self._handle = handle
        self._one_sync = asyncio.Lock()
        #: Syncs that failed since the last one that did not.
        self.failures = 0
        #: Rooms whose timelines are not handled with the sync that is handled: any of their events may lack a key.
        self.held: Collection[str] = ()

    async def sync(
        self,
        timeout: int | None,  # noqa: ASYNC109  # nio's own parameter
        sync_filter: Any,
        since: str | None,
        full_state: bool | None,
        set_presence: str | None,
    ) -> Synced:
        """Ask, and handle the answer: see `sync` of the client."""
        if self._handling.is_in_callback:
            raise LocalProtocolError("sync() inside a callback would acknowledge events that are not handled yet")
        async with self._one_sync:
            # Rooms are in no store: the first sync of a process brings them.
            full_state = True if not self._gaps.has_rooms else full_state
            response = await self._sync_once(timeout, sync_filter, since, full_state, set_presence)
            self.failures = self.failures + 1 if isinstance(response, SyncError) else 0
            await self._check_ownership_after(response)
            if isinstance(response, SyncResponse):
                await self._gaps.fill()
            return response

    async def handle(self, response: SyncResponse) -> bool:
        """Handle an answer, and make all of it durable. Returns False for a part of the sync that is being handled."""
        if self._handling.is_in_callback:
            # A further page.
            return False
        async with self._gaps.turn():
            await self._handle_alone(response)
        return True

    async def _check_ownership_after(self, response: Synced) -> None:
        if isinstance(response, SyncError):
            # Another process that logs in makes this one's token void.
            await self._session.check_ownership()
        elif self._session.is_open:
            await self._session.flusher.check_ownership_if_due()

    async def _sync_once(self, *how: Any) -> Synced:
        # A sync acknowledges messages that another database's keys may be for.
        if self._client.access_token and (answer := await self._client.check_identity()) is not None:
            return SyncError(answer.message, answer.status_code)
        _, sync_filter, since, *_ = how
        client = self._client
        self._gaps.asked = Asked(since or client.next_batch or client.loaded_sync_token or "", sync_filter)
        try:
            return await self._ask(*how)
        except PageMissingError as error:
            return error.answer
        finally:
            self._gaps.asked = None

    async def _handle_alone(self, response: SyncResponse) -> None:
        before, store = self._client.next_batch, self._session.store
        if before == response.next_batch:
            # Nothing new, but somebody may have used keys up.
            self._rooms.note_key_counts(response)
            return
        plan = self._gaps.plan(response)
        self.held = plan
        try:
            await self._run_callbacks(response)
        except BaseException:
            self._client.next_batch = before
            raise
        self._gaps.keep(plan)
        store.complete_sync(response.next_batch)
        # From here on nothing is undone: all of it was handled, whether or not the database is there now.
        await self._client.flush()

    async def _run_callbacks(self, response: SyncResponse) -> None:
        store = self._session.store
        with self._handling.inside():
            # First of all: a callback that sends must not use what is out of date.
            self._session.machine.add_changed_users(set(response.device_list.changed))
            await self._handle(response)
        if not self._session.is_open or self._session.store is not store:
            raise StoreClosed("this client was closed while it handled a sync; its events will come again")
