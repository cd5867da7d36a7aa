"""Keeps the anchor on the homeserver up to date, and compares it before an account is taken over."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any, Final, NamedTuple

from nio import Api, ErrorResponse, Response, SyncResponse

from cryptostore.errors import CryptoStoreError
from cryptostore.logs import logger
from cryptostore.nio.trust.requests import Requests
from cryptostore.plugins.loading import shown_url
from cryptostore.records import Account

from .anchor import Anchor, StoredAnchor, event_type, is_ahead, opened, went_back
from .answers import failure, is_homeservers
from .homeserver import Homeserver
from .looking import Seen
from .session import Session
from .store import ProductionStore
from .threads import in_thread

#: Seconds between two anchors, at least: each is an event in the syncs of all sessions of the user.
INTERVAL: Final = 300.0
#: Batches without which none is due: that of a sync that brings the last anchor alone must not lead to the next one.
_BATCHES: Final = 10
#: Seconds that `close` waits for the last one.
_GRACE: Final = 5.0
#: HTTP statuses of a homeserver that has no account data, or none for this client.
_HAS_NONE: Final = frozenset({403, 404, 405, 501})

_log: Final = logger(__name__)


class AccountData(Response):
    """Account data as they came."""

    def __init__(self, content: Any) -> None:
        super().__init__()
        self.content = content

    @classmethod
    def from_dict(cls, parsed_dict: Any) -> AccountData | ErrorResponse:
        """nio's way to make an answer."""
        if isinstance(parsed_dict, dict) and "errcode" in parsed_dict:
            return ErrorResponse.from_dict(parsed_dict)
        return cls(parsed_dict)


class _Looked(NamedTuple):
    """What the homeserver has: whether it keeps anchors, and this account's."""

    is_kept: bool
    anchor: Anchor | None = None


class Anchoring:
    """The anchor of whichever account is open. No sync waits for it.

    Nothing is written before the homeserver's anchor was compared: else the next start would find the two alike.
    """

    def __init__(self, session: Session, requests: Requests, homeserver: Homeserver) -> None:
        self._session = session
        self._requests = requests
        self._homeserver = homeserver
        #: The homeserver's anchor for an account that is about to be opened; None before it was looked for.
        self._looked: _Looked | None = None
        #: The store whose account was compared, if the homeserver keeps anchors.
        self._kept_for: ProductionStore | None = None
        self._compared: ProductionStore | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_there = False
        self._next, self._flushes = 0.0, 0

    async def look(self, seen: Seen, token: str) -> None:
        """Compare the database's anchor with the homeserver's, once for each opening, before the account is taken over
        or, where it was opened without a token, before the first sync.

        Raises DatabaseWentBack, and HomeserverUnavailable.
        """
        if self._is_open(self._compared):
            return
        self._looked = await self._find(seen, token) if seen.anchor else _Looked(is_kept=True)
        if seen.anchor and seen.anchor.is_compared and self._looked.anchor:
            await self._compare(seen.account, seen.anchor, self._looked.anchor)
        if self._session.is_open:
            self.opened()

    def opened(self) -> None:
        """An account was opened: it has a new owner, and so a new anchor."""
        looked, self._looked = self._looked, None
        if looked is None:
            return
        self._compared = store = self._session.store
        self._kept_for = store if looked.is_kept else None
        self._is_there, self._next = False, 0.0
        if looked.is_kept:
            store.anchor.advance(looked.anchor)

    async def settle(self) -> None:
        """Bring the homeserver the new owner's anchor, inside the deadline. What hinders it is logged."""
        if self._is_open(self._kept_for) and not self._is_there:
            await self._put()

    async def after_sync(self, _response: SyncResponse) -> None:
        """Begin to bring the next anchor, beside the syncs, if it is due."""
        if self._is_due() and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._bring_next())

    async def closing(self) -> None:
        """The client is closed. Its last anchor stands for all that it wrote."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError, CryptoStoreError):
                await task
        if self._is_open(self._kept_for) and self._batches:
            with suppress(TimeoutError):
                async with asyncio.timeout(_GRACE):
                    await self._bring_next()
        self._looked = self._kept_for = self._compared = None

    async def _compare(self, account: Account, stored: StoredAnchor, there: Anchor) -> None:
        ours = stored.anchor
        if is_ahead(there, ours):
            # The owner until now may have advanced both since the database was read: its record comes first.
            if self._session.is_open:
                ours = self._session.store.anchor.anchor
            else:
                ours = await in_thread(self._session.threads, stored.read)
        if is_ahead(there, ours):
            raise went_back(account, shown_url(self._session.url), there, ours)

    def _is_open(self, store: ProductionStore | None) -> bool:
        return store is not None and self._session.is_open and self._session.store is store

    @property
    def _batches(self) -> int:
        """How many were written since the last anchor."""
        return self._session.statistics.flushes - self._flushes

    def _is_due(self) -> bool:
        if not self._is_open(self._kept_for) or time.monotonic() < self._next:
            return False
        return not self._is_there or self._batches >= _BATCHES

    async def _bring_next(self) -> None:
        if self._is_there:
            self._session.store.anchor.advance()
        await self._put()

    async def _put(self) -> None:
        self._next = time.monotonic() + INTERVAL
        store = self._session.store
        path = _path(store.account_id)
        try:
            async with self._homeserver.within_deadline():
                # The anchor is durable before the request leaves.
                sealed = store.anchor.anchor.sealed(store.storage.secrets)
                answer = await self._requests.ask("PUT", *path, content=sealed)
        except CryptoStoreError as error:
            _log.debug("the homeserver has no new anchor: %s", error)
            return
        if answer.is_ok:
            self._is_there, self._flushes = True, self._session.statistics.flushes
        elif _has_none(answer.status, answer.errcode):
            self._no_anchors(answer.problem)
            self._kept_for = None

    async def _find(self, seen: Seen, token: str) -> _Looked:
        path = Api._build_path(_path(seen.account))  # noqa: SLF001  # it escapes each part
        async with self._homeserver.within_deadline():
            answer = await self._homeserver.ask(AccountData, "GET", path, token=token)
        if isinstance(answer, AccountData):
            anchor = opened(answer.content, seen.anchor.seal) if seen.anchor else None
            if anchor is None and answer.content:
                _log.warning("what the homeserver has as the anchor of %s is not this account's", seen.account)
            return _Looked(is_kept=True, anchor=anchor)
        if answer.status_code == "M_NOT_FOUND":
            return _Looked(is_kept=True)
        if _has_none(getattr(answer.transport_response, "status", None), answer.status_code):
            self._no_anchors(str(answer))
            return _Looked(is_kept=False)
        raise failure("the homeserver does not say how far this account had come", answer)

    @staticmethod
    def _no_anchors(why: str) -> None:
        _log.info("the homeserver keeps no account data here, so it does not show that a backup was put back: %s", why)


def _has_none(status: int | None, errcode: str | None) -> bool:
    return status in _HAS_NONE and is_homeservers(errcode)


def _path(account: Account) -> list[str]:
    return ["user", account.user_id, "account_data", event_type(account.device_id)]
