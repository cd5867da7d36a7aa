"""Syncs one after another, and what nio asks between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple, Protocol

from nio import LocalProtocolError, SyncError

from cryptostore.errors import AccessTokenRejected
from cryptostore.logs import logger

from .answers import is_token_rejected
from .gap_client import GapHandling
from .pauses import growing_pause
from .syncs import Synced, Syncs

#: Seconds between two syncs that the homeserver refuses, at least and at most.
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 30.0

_log: Final = logger(__name__)


class Client(Protocol):
    """What a client does between its syncs."""

    access_token: str
    synced: asyncio.Event

    @property
    def should_upload_keys(self) -> bool:
        """Whether keys are to be uploaded."""

    @property
    def should_query_keys(self) -> bool:
        """Whether users are to be asked about."""

    @property
    def should_claim_keys(self) -> bool:
        """Whether one-time keys are to be asked for."""

    async def open_restored(self) -> None:
        """Open the account whose login was restored."""

    async def sync(
        self,
        timeout: int | None,  # noqa: ASYNC109  # nio's own parameter
        sync_filter: Any,
        since: str | None,
        full_state: bool | None,
        set_presence: str | None,
    ) -> Synced:
        """Ask what is new."""

    async def send_to_device_messages(self) -> list[Any]:
        """Send what waits for other devices."""

    async def keys_upload(self) -> Any:
        """Upload keys."""

    async def keys_query(self) -> Any:
        """Ask about users."""

    async def keys_claim(self, user_set: Any) -> Any:
        """Ask for one-time keys."""

    def get_users_for_key_claiming(self) -> Any:
        """Whose one-time keys."""

    async def run_response_callbacks(self, responses: list[Any]) -> None:
        """Run the callbacks for answers."""


class Rounds(NamedTuple):
    """How `sync_forever` was called."""

    timeout: int | None
    sync_filter: Any
    since: str | None
    full_state: bool | None
    sleep_milliseconds: int | None
    first_sync_filter: Any
    presence: str | None


class SyncLoop:
    """What `sync_forever` does. When it ends, everything that it started has ended too."""

    def __init__(self, client: Client, syncs: Syncs, gaps: GapHandling) -> None:
        self._client = client
        self._syncs = syncs
        self._gaps = gaps

    async def run(self, how: Rounds, is_stopped: Callable[[], bool]) -> None:
        """Sync until it is stopped: see `sync_forever` of the client."""
        try:
            await self._client.open_restored()
            await self._gaps.fill_beside(self._rounds(how, is_stopped))
        except LocalProtocolError as error:
            if self._client.access_token:
                raise
            # nio forgets a token after a soft logout, and then asks nothing any more.
            raise AccessTokenRejected("the homeserver has logged this device out") from error

    async def _rounds(self, how: Rounds, is_stopped: Callable[[], bool]) -> None:
        client = self._client
        if not is_stopped():
            first_filter = how.sync_filter if how.first_sync_filter is None else how.first_sync_filter
            # Alone, so that the state is complete before anything is asked because of it.
            await self._run_together([client.sync(0, first_filter, how.since, how.full_state, how.presence)])
            await self._run_together(self._errands())
            await self._end_round(how.sleep_milliseconds)
        while not is_stopped():
            sync = client.sync(how.timeout, how.sync_filter, None, None, how.presence)
            await self._run_together([sync, client.send_to_device_messages(), *self._errands()])
            await self._end_round(how.sleep_milliseconds)

    def _errands(self) -> list[Coroutine[Any, Any, Any]]:
        """The requests that nio makes between syncs."""
        errands: list[Coroutine[Any, Any, Any]] = []
        if self._client.should_upload_keys:
            errands.append(_unless_done(self._client.keys_upload, lambda: self._client.should_upload_keys))
        if self._client.should_query_keys:
            errands.append(_unless_done(self._client.keys_query, lambda: self._client.should_query_keys))
        if self._client.should_claim_keys:
            errands.append(self._client.keys_claim(self._client.get_users_for_key_claiming()))
        return errands

    async def _run_together(self, coroutines: list[Coroutine[Any, Any, Any]]) -> None:
        tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
        try:
            for response in asyncio.as_completed(tasks):
                answer = await response
                if answer is None:
                    continue
                await self._client.run_response_callbacks([answer])
                if isinstance(answer, SyncError):
                    self._note_failure(answer)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _note_failure(self, answer: SyncError) -> None:
        if is_token_rejected(answer):
            raise AccessTokenRejected(f"the homeserver does not accept the access token any more: {answer}")
        _log.warning("%d syncs failed in a row, the last one with %s", self._syncs.failures, answer)

    async def _end_round(self, sleep_milliseconds: int | None) -> None:
        self._client.synced.set()
        self._client.synced.clear()
        # nio would ask a homeserver that refuses again and again without a pause.
        failures = self._syncs.failures
        pause = growing_pause(failures, _FIRST_PAUSE, _LONGEST_PAUSE) if failures else 0.0
        await asyncio.sleep(max(pause, (sleep_milliseconds or 0) / 1000))


async def _unless_done(ask: Callable[[], Coroutine[Any, Any, Any]], is_due: Callable[[], bool]) -> Any:
    """The answer, or None where another task, such as one that sends, has asked the same in the meantime."""
    try:
        return await ask()
    except LocalProtocolError:
        if is_due():
            raise
        return None


async def all_of(coroutines: list[Coroutine[Any, Any, Any]]) -> list[Any]:
    """What they return. When one fails the others are awaited before its error is raised."""
    outcomes = await asyncio.gather(*coroutines, return_exceptions=True)
    return [_raised(outcome) for outcome in outcomes]


def _raised(outcome: Any) -> Any:
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome
