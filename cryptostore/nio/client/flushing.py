"""Flushes: one at a time, each a task of its own that no caller's cancellation reaches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

from cryptostore.errors import (
    AccountNotFound,
    BackendUnavailable,
    CryptoStoreError,
    DatabaseWentBack,
    FencedOut,
    StorageFull,
    StoreClosed,
)
from cryptostore.logs import logger
from cryptostore.plugins.observers import notify

from .statistics import Statistics
from .store import ProductionStore
from .threads import in_thread

#: After these, this store can never write again.
_FINAL: Final = (FencedOut, DatabaseWentBack, AccountNotFound, StoreClosed)

T = TypeVar("T")

_log: Final = logger(__name__)


class Flusher:
    """Flushes pending changes on demand, and at most `interval` seconds after a change.

    Every write says whether the account is still ours. Where nothing is written, the database is asked at most once in
    `check_interval` seconds.

    A flush that fails changes nothing: its changes wait again, and its callers get the error.
    After FencedOut, DatabaseWentBack, AccountNotFound or StoreClosed every later flush raises the same.
    """

    def __init__(
        self,
        store: ProductionStore,
        statistics: Statistics,
        interval: float,
        check_interval: float,
        threads: ThreadPoolExecutor,
    ) -> None:
        self._store = store
        self._threads = threads
        self._statistics = statistics
        self._interval = interval
        self._check_interval = check_interval
        self._loop = asyncio.get_running_loop()
        #: When the database was last asked, or wrote something: opening did.
        self._owned_at = self._loop.time()
        #: Since when the oldest change has waited.
        self._waiting_since: float | None = None
        self._running: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._final_error: CryptoStoreError | None = None
        store.storage.attach(self._start_timer)
        # What was written before there was a loop to attach to.
        self._start_timer()

    async def flush(self) -> None:
        """Everything that changed before this call is durable when it returns.

        Raises BackendUnavailable or StorageFull, by a try that began after this call, with everything kept for the
        next flush, and FencedOut, DatabaseWentBack, AccountNotFound or StoreClosed, after which there is none.
        """
        self.check()
        if self._running is not None:
            # It may have begun before the caller's last change, and its time may end just when the database is back.
            with suppress(BackendUnavailable, StorageFull):
                await asyncio.shield(self._running)
        if self._running is None and self._store.is_dirty:
            self._start()
        if self._running is not None:
            await asyncio.shield(self._running)

    @property
    def is_fenced(self) -> bool:
        """Whether another program has taken the account over."""
        return isinstance(self._final_error, FencedOut)

    async def settle_offers(self) -> None:
        """Compare new Megolm sessions with the stored ones. Raises BackendUnavailable; they stay offers then."""
        while keys := self._store.offered_sessions():
            read = partial(self._store.read_offers, keys)
            self._store.settle_offers(await in_thread(self._threads, self._reported, read, self._waiting_since))

    def check(self) -> None:
        """Raise the error after which nothing can be written."""
        if self._final_error is not None:
            raise self._final_error

    async def check_ownership_if_due(self) -> None:
        """As `check_ownership`, unless the database said so less than `check_interval` seconds ago."""
        self.check()
        if self._loop.time() - self._owned_at >= self._check_interval:
            await self.check_ownership()

    async def check_ownership(self) -> None:
        """Ask the database whether the account is still ours. Raises FencedOut, DatabaseWentBack or AccountNotFound, as
        later flushes do.

        A database that does not answer is no error here: the next write will raise it.
        """
        self.check()
        self._statistics.ownership_checks += 1
        self._owned_at = self._loop.time()
        try:
            await in_thread(self._threads, self._store.storage.check_ownership)
        except (BackendUnavailable, StorageFull) as error:
            _log.debug("could not ask who owns the account: %s", error)
        except _FINAL as error:
            self._end_with(error)
            raise

    def confirm(self) -> None:
        """The identity is the device's: what waited for that is written, by the timer at the latest."""
        self._store.is_confirmed = True
        self._start_timer()

    async def stop(self, *, writes: bool = True) -> None:
        """Flush for the last time, unless there was a final error, or nothing may be written."""
        try:
            if writes and self._final_error is None:
                await self.flush()
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _start(self) -> asyncio.Task[None]:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # Some changes are not told, and wait from now on.
        self._waiting_since = self._waiting_since or self._loop.time()
        self._running = asyncio.create_task(self._run())
        self._running.add_done_callback(_retrieve)
        return self._running

    async def _run(self) -> None:
        try:
            await self.settle_offers()
            await self._apply()
        except _FINAL as error:
            self._end_with(error)
            raise
        except Exception:
            # After any error, and with or without a waiting task: changes are tried again.
            self._statistics.failed_flushes += 1
            self._start_timer()
            raise
        finally:
            self._running = None

    def _end_with(self, error: CryptoStoreError) -> None:
        self._final_error = error
        if isinstance(error, FencedOut):
            self._store.is_lost()

    async def _apply(self) -> None:
        # All pickles of the batch are taken here, in one step.
        batch = self._store.storage.take(self._store.collect())
        since, self._waiting_since = self._waiting_since, None
        if not batch:
            return
        try:
            await in_thread(self._threads, self._reported, partial(self._write, len(batch), since), since)
        except BaseException:
            self._store.storage.put_back()
            self._waiting_since = since
            raise
        self._store.storage.taken()
        self._store.settle(batch)
        self._owned_at = self._loop.time()
        self._statistics.flushes += 1
        self._statistics.records += len(batch)

    def _write(self, records: int, since: float | None) -> None:
        self._store.storage.apply_taken()
        notify("cryptostore_flushed", account=self._store.account_id, records=records, age=self._age(since))

    def _reported(self, call: Callable[[], T], since: float | None) -> T:
        try:
            return call()
        except CryptoStoreError as error:
            facts = {"age": self._age(since), "error": type(error).__name__}
            notify("cryptostore_flush_failed", account=self._store.account_id, **facts)
            raise

    def _age(self, since: float | None) -> float:
        return 0.0 if since is None else self._loop.time() - since

    def _start_timer(self) -> None:
        is_dirty = self._store.is_dirty
        if is_dirty and self._waiting_since is None:
            self._waiting_since = self._loop.time()
        may_write = self._store.is_confirmed and is_dirty
        if self._timer is None and may_write and not self._loop.is_closed():
            self._timer = self._loop.call_later(self._interval, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._running is not None:
            self._start_timer()
        elif self._store.is_dirty and self._final_error is None:
            self._start()


def _retrieve(task: asyncio.Task[None]) -> None:
    # A flush that no task waited for is reported here alone.
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.warning("a flush failed: %s: %s", type(error).__name__, error)
