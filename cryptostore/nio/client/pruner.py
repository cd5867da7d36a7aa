"""A running client deletes what is old in its account, as far as its settings say, beside everything else."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from typing import Final, Protocol

from nio import MatrixInvitedRoom, SyncResponse

from cryptostore.errors import BackendUnavailable, CryptoStoreError, HomeserverUnavailable, StorageFull, StoreClosed
from cryptostore.logs import logger
from cryptostore.nio.pruning import Pruning
from cryptostore.nio.times import now
from cryptostore.records import InboundGroupSession, KeyBackup, OutgoingKeyRequest, Value
from cryptostore.records.changes import Changes
from cryptostore.store.prunable import Doomed, Pruned, Rules, doomed_by, in_batches

from .letting_go import LettingGo
from .session import Session
from .store import ProductionStore
from .threads import in_thread

#: Seconds from the first sync to the first round, and from one round to the next. They are random, so that not all
#: clients of one database begin at once.
_FIRST: Final = (600.0, 3_600.0)
_BETWEEN: Final = (72_000.0, 100_800.0)
_AFTER_FAILURE: Final = (3_000.0, 4_200.0)
#: Seconds after each page that was looked at, and each batch: nobody else shall notice.
_PAUSE: Final = 0.2
#: Records that are deleted at once.
_BATCH: Final = 100

#: Encrypted rooms in which the account was not when this was last looked at, and since when: JSON.
_LEFT_ROOMS: Final = ("client", "left rooms")

_log: Final = logger(__name__)


class Client(Protocol):
    """What the rooms of a client are asked for."""

    invited_rooms: dict[str, MatrixInvitedRoom]
    encrypted_rooms: set[str]

    def invalidate_outbound_session(self, room_id: str) -> None:
        """Never use the room's key again."""


class Pruner:
    """Goes through the account about once a day. `joined_rooms` asks the homeserver in which rooms the account is.

    Nothing is read before the first sync, and nothing is held beyond the page that is looked at.
    """

    def __init__(
        self,
        client: Client,
        session: Session,
        joined_rooms: Callable[[], Awaitable[set[str]]],
        settings: Pruning | None,
    ) -> None:
        self._client = client
        self._session = session
        self._joined_rooms = joined_rooms
        self._settings = settings or Pruning()
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    def opened(self) -> None:
        """An account was opened."""
        self._stopping = asyncio.Event()

    async def after_sync(self, _response: SyncResponse) -> None:
        """Begin, beside the syncs."""
        if self._settings != Pruning() and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run())

    async def closing(self) -> None:
        """The client is closed: the batch in hand is the last one."""
        self._stopping.set()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        pause = _FIRST
        while not await self._is_stopped_within(random.uniform(*pause)):
            try:
                await self.round()
                pause = _BETWEEN
            except (BackendUnavailable, StorageFull, HomeserverUnavailable) as error:
                _log.info("pruning goes on later: %s", error)
                pause = _AFTER_FAILURE
            except CryptoStoreError as error:
                # Another process has the account, or it is gone: the syncs say so, too.
                _log.debug("pruning ends: %s", error)
                return
            except Exception as error:  # noqa: BLE001  # it must neither end in silence nor end the syncs
                _log.warning("pruning failed, and is tried again: %s", type(error).__name__)
                pause = _AFTER_FAILURE

    async def round(self) -> None:
        """Delete all that is due now.

        Raises BackendUnavailable, StorageFull and HomeserverUnavailable, and what `flush` raises.
        """
        store, deleted = self._session.store, Counter[str]()
        try:
            await self._prune(store, self._settings.rules(now()), deleted)
            if self._settings.left_rooms is not None:
                rooms = await self._rooms_left_before(store, now() - self._settings.left_rooms)
                if rooms:
                    await self._prune(store, Rules(rooms=rooms), deleted)
        finally:
            if deleted:
                named = ", ".join(f"{number:,} {kind}" for kind, number in deleted.items())
                _log.info("deleted what was old of %s: %s", store.account_id, named)
                store.storage.durable.reports.pruned(deleted)

    async def _prune(self, store: ProductionStore, rules: Rules, deleted: Counter[str]) -> None:
        letting_go, kept = LettingGo(store, self._client.invalidate_outbound_session), Pruned()
        durable, is_done = store.storage.durable, False
        is_damaged = bool((await in_thread(self._session.threads, durable.get, KeyBackup, [()])).unreadable)
        steps = doomed_by(rules, durable, kept)
        while not is_done:
            with store.watched() as written:
                page = await in_thread(self._session.threads, next, steps, None)
                is_done = page is None
                for batch in in_batches(page or [], _BATCH):
                    deletable = self._deletable(store, batch, is_damaged=is_damaged)
                    gone = letting_go.delete(deletable, written)
                    await self._made_durable(gone, deleted)
            await self._is_stopped_within(_PAUSE)

    def _deletable(self, store: ProductionStore, batch: list[Doomed], *, is_damaged: bool) -> list[Doomed]:
        """Without Megolm sessions while the key backup has not seen all: which ones it has is not known.

        `is_damaged` says that the record of the backup cannot be read. Raises StoreClosed if the account was closed
        meanwhile.
        """
        if self._session.store is not store:
            raise StoreClosed("this account was opened anew while it was pruned")
        backup = store.to_back_up.backup
        if (backup is None and not is_damaged) or (backup is not None and backup.is_walked):
            return batch
        return [each for each in batch if each.record.kind is not InboundGroupSession]

    async def _made_durable(self, gone: list[Doomed], deleted: Counter[str]) -> None:
        keys = [key for each in gone for key in each.keys]
        if not keys:
            return
        self._forget_requests({str(key[0]) for kind, key in keys if kind is OutgoingKeyRequest})
        await self._session.flush()
        deleted.update(kind.kind_name for kind, _ in keys)
        self._session.statistics.pruned += len(keys)
        await self._is_stopped_within(_PAUSE)

    def _forget_requests(self, request_ids: set[str]) -> None:
        """A key that came, and was deleted since, may be asked for again."""
        waiting = self._session.machine.outgoing_key_requests
        for name in [name for name, request in waiting.items() if request.request_id in request_ids]:
            del waiting[name]

    async def _rooms_left_before(self, store: ProductionStore, before: datetime) -> frozenset[str]:
        """The encrypted rooms in which the account was never since then, as far as it was looked at.

        An answer of the homeserver that lacks a room once is no proof: it counts from when it was first seen.
        """
        # nio keeps rooms that were left among the others.
        here = await self._joined_rooms() | self._client.invited_rooms.keys()
        stored = await in_thread(self._session.threads, store.storage.get, Value, [_LEFT_ROOMS])
        known = _times_in(stored.get(_LEFT_ROOMS))
        today = now().timestamp()
        left = {room: known.get(room, today) for room in self._client.encrypted_rooms - here}
        if left != known:
            store.storage.write(Changes([Value(*_LEFT_ROOMS, json.dumps(left, sort_keys=True).encode())]))
        return frozenset(room for room, since in left.items() if since < before.timestamp())

    async def _is_stopped_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()


def _times_in(stored: Value | None) -> dict[str, float]:
    """What was written down of rooms; nothing for what is not understood."""
    try:
        found = json.loads(stored.value) if stored else {}
    except ValueError:
        return {}
    times = found.items() if isinstance(found, dict) else ()
    return {room: float(since) for room, since in times if isinstance(since, int | float)}
