"""One account of a client: opened in a thread, flushed before anything is sent, and closed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final, NamedTuple

from nio import LocalProtocolError

from cryptostore.errors import ConfigurationError, StoreClosed
from cryptostore.logs import logger
from cryptostore.nio.trust.olm_payloads import OlmPayloads
from cryptostore.nio.trust.policies import Policies
from cryptostore.records import Account

from .flushing import Flusher
from .looking import Look, Question, Seen, look_no_further
from .machine import ProductionOlm
from .opening import Openings
from .statistics import Statistics
from .store import ProductionStore
from .takeovers import NotYetError, TakeOvers, Turn
from .threads import in_thread, threads_of

#: Raises StoreClosed if the caller of an opening has gone.
Check = Callable[[], None]
#: Asks about an account before it is taken over. Raises if it must not be.
Ask = Callable[[Seen], Coroutine[Any, Any, None]]

_log: Final = logger(__name__)
_CHANGES_HANDS: Final = "waiting %.0f s before taking %s over from %s, since it changes hands too often"
_ON_THE_LOOP: Final = "the database was opened on the event loop; `await client.open()` before keeps it free"


class Intervals(NamedTuple):
    """Seconds from a change to its flush, and between two questions whose the account is, at most."""

    flush: float
    ownership_check: float


class Callbacks(NamedTuple):
    """What a client does with accounts: `use` one that was opened, and `forget` it, before `close_connections`."""

    use: Callable[[Opened], None]
    forget: Callable[[], None]
    close_connections: Callable[[], Awaitable[Any]]


class Opened(NamedTuple):
    """What opening an account reads from the database."""

    store: ProductionStore
    machine: ProductionOlm
    encrypted_rooms: set[str]
    token: str | None


def _do_nothing() -> None:
    """Takes the place of a check for cancellation: opening without a thread cannot be cancelled."""


def _close_again(opened: Opened | Turn) -> None:
    if isinstance(opened, Opened):
        opened.store.close()


class Session:
    """An account that is open, or the way to one. The callbacks run at once, before anything else can happen."""

    def __init__(
        self, url: str, pickle_key: str, intervals: Intervals, callbacks: Callbacks, policies: Policies
    ) -> None:
        self.url: Final = url
        self.statistics: Final = Statistics()
        #: Who takes in what Olm messages say beside room keys, in any account that is opened.
        self.olm_payloads: Final = OlmPayloads()
        #: For whatever waits for the database.
        self.threads: Final = threads_of(url)
        self.openings: Final = Openings(threads_of(url, opening=True))
        #: Whether the homeserver was asked about an identity that is not confirmed yet.
        self.was_asked_about = False
        self._pickle_key = pickle_key
        self._policies = policies
        self._intervals = intervals
        self._callbacks = callbacks
        self._opened: Opened | None = None
        self._flusher: Flusher | None = None
        self._closed = False
        self._one_opening = asyncio.Lock()
        self._one_end = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        """Whether there is an open store."""
        return self._opened is not None

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called, and nothing since that begins."""
        return self._closed

    @property
    def store(self) -> ProductionStore:
        """The open store. Raises StoreClosed if there is none."""
        return self._used.store

    @property
    def machine(self) -> ProductionOlm:
        """The encryption machine. Raises StoreClosed if the store is not open."""
        return self._used.machine

    @property
    def _used(self) -> Opened:
        if self._opened is None:
            raise StoreClosed("this client is not open")
        return self._opened

    @property
    def flusher(self) -> Flusher:
        """What writes this account's changes. Raises StoreClosed if the store is not open."""
        if self._flusher is None:
            self._flusher = Flusher(self.store, self.statistics, *self._intervals, self.threads)
        return self._flusher

    def begin(self) -> None:
        """Nothing is refused any more because of an earlier `close`."""
        self._closed = False

    async def end_lost(self, close: Callable[[], Awaitable[None]]) -> None:
        """Call the client's `close` if the account was lost to another program, so that an opening begins anew.

        Raises what else nothing can be written after: a new opening would go on with a database that went back.
        """
        async with self._one_end:
            if self._flusher is None:
                return
            if not self._flusher.is_fenced:
                self._flusher.check()
                return
            await close()

    async def open(self, account: Account, ask: Ask, *, take_over: bool = False) -> None:
        """As `take`, unless an account is open. Raises StoreClosed if `close` is called meanwhile."""
        self.begin()
        if not self.is_open:
            await self.openings.run(self.take(account, ask, take_over=take_over))

    async def take(self, account: Account, ask: Ask, *, take_over: bool = False) -> None:
        """Take this account over. It becomes the client's.

        If the account changes hands too often, this waits before. Cancelled until then, it takes nothing over.
        """
        async with self._one_opening:
            self.check_account(account)
            if self.is_open:
                return
            if take_over:
                ProductionStore.take_back(account.user_id, account.device_id, self.url)
            question = Question(ask)
            try:
                self._use(await self._opened_in_turn(account, question.wait))
            finally:
                question.give_up()

    async def flush(self) -> None:
        """Make everything durable that changed before this call. Raises what `Flusher.flush` raises."""
        if self.is_open:
            await self.flusher.flush()

    async def flush_before_sending(self) -> None:
        """As `flush`; a new identity is written only when it is confirmed."""
        if self.store.is_confirmed:
            await self.flusher.flush()
        else:
            self.was_asked_about = True

    async def check_ownership(self) -> None:
        """Ask the database, in a thread, whether the account is still ours. Raises what `Flusher` raises."""
        if self.is_open:
            await self.flusher.check_ownership()

    async def close(self) -> None:
        """Flush, and give the connections and the account back. An opening under way is given up and awaited.

        Raises what `flush` raises, after everything was given back.
        """
        self._closed = True
        try:
            await self.openings.end()
        finally:
            await self.close_store()

    async def close_store(self) -> None:
        """As `close`, but openings go on."""
        store = self.store if self.is_open else None
        try:
            if store is not None:
                # A new identity that the homeserver was asked about, and did not confirm, leaves nothing behind.
                await self.flusher.stop(writes=store.is_confirmed or not self.was_asked_about)
        finally:
            self._opened, self._flusher = None, None
            self._callbacks.forget()
            await self._callbacks.close_connections()
            if store is not None:
                await in_thread(self.threads, store.close)

    def open_here(self, account: Account) -> None:
        """Open the account here and now, without asking the homeserver. On the event loop it waits for no turn."""
        if _is_loop_running():
            self.statistics.loop_reads += 1
            _log.warning(_ON_THE_LOOP)
        opened = self._read_in_turn(account, look_no_further)
        if isinstance(opened, Turn):
            if not _is_loop_running():
                time.sleep(opened.pause)
            opened = self._read(account, look_no_further, opened.history)
        self._use(opened)

    def check_openings(self) -> None:
        """Raise LocalProtocolError while the account is being opened: what came second would take it from the first."""
        if not self.is_open and self.openings:
            raise LocalProtocolError("this client is being opened; await `open()`, or `close()`, before anything else")

    def check_account(self, account: Account) -> None:
        """Raise ConfigurationError if another account is open."""
        if self._opened is not None and (ours := self._opened.store.account_id) != account:
            raise ConfigurationError(
                f"this client was opened for {ours.user_id} {ours.device_id}, not for {account.user_id} "
                f"{account.device_id}; each device needs a client of its own"
            )

    async def _opened_in_turn(self, account: Account, look: Look) -> Opened:
        opened = await self.openings.in_thread(partial(self._read_in_turn, account, look), _close_again)
        if isinstance(opened, Opened):
            return opened
        _log.warning(_CHANGES_HANDS, opened.pause, account, opened.owner)
        # Not in a thread: that could not be stopped, and would keep flushes waiting.
        await asyncio.sleep(opened.pause)
        return await self.openings.in_thread(partial(self._read, account, look, opened.history), _close_again)

    def _read_in_turn(self, account: Account, look: Look, check: Check = _do_nothing) -> Opened | Turn:
        """What is in the account, or how long to wait before it is read."""
        try:
            return self._read(account, look, None, check)
        except NotYetError as error:
            return error.turn

    def _read(self, account: Account, look: Look, history: TakeOvers | None, check: Check = _do_nothing) -> Opened:
        def look_and_check(seen: Seen) -> None:
            look(seen)
            # The caller may have gone meanwhile.
            check()

        store = ProductionStore(account, self.url, self._pickle_key, self.statistics, look_and_check, history)
        try:
            machine = ProductionOlm(store, self.statistics, self.olm_payloads, self._policies)
            return Opened(store, machine, store.load_encrypted_rooms(), store.token_at_opening)
        except BaseException:
            store.close()
            raise

    def _use(self, opened: Opened) -> None:
        self._opened = opened
        self.was_asked_about = False
        self.begin()
        if _is_loop_running():
            # From now on, not from the first request: there may be none.
            self._flusher = self.flusher
        self._callbacks.use(opened)


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
