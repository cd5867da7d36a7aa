"""The base of the client: a store that is opened in a thread, flushed before anything is sent, and closed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from aiohttp import ClientResponse
from nio import AsyncClient, AsyncClientConfig, LocalProtocolError

from cryptostore.errors import ConfigurationError, StoreClosed
from cryptostore.logs import logger
from cryptostore.plugins.urls import redact
from cryptostore.records import Account

from .answers import NOT_JSON
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

#: Requests of who has no device yet.
_NEEDS_NO_ACCOUNT: Final = ("/login", "/register", "/versions")

_log: Final = logger(__name__)
_CHANGES_HANDS: Final = "waiting %.0f s before taking %s over from %s, since it changes hands too often"


class _Opened(NamedTuple):
    """What opening an account reads from the database."""

    store: ProductionStore
    machine: ProductionOlm
    encrypted_rooms: set[str]
    token: str | None


def _do_nothing() -> None:
    """Takes the place of a check for cancellation: opening without a thread cannot be cancelled."""


def _close_again(opened: _Opened | Turn) -> None:
    if isinstance(opened, _Opened):
        opened.store.close()


class DurableClient(AsyncClient):
    """An AsyncClient that sends nothing before what it depends on is durable."""

    def __init__(
        self,
        homeserver: str,
        user: str,
        device_id: str | None,
        url: str,
        pickle_key: str,
        config: AsyncClientConfig | None,
        flush_interval: float,
        ownership_check_interval: float = 10.0,
        **connection: Any,
    ) -> None:
        # The pickle key stays out of the config: that is a dataclass, and its repr shows everything.
        ours = replace(config or AsyncClientConfig(), store=ProductionStore, store_sync_tokens=True)
        super().__init__(homeserver, user, device_id, redact(url), ours, **connection)
        if user.startswith("@"):
            self.user_id = user
        self.statistics: Final = Statistics()
        self._url = url
        self._pickle_key = pickle_key
        self._flush_interval = flush_interval
        self._ownership_check_interval = ownership_check_interval
        self._flusher: Flusher | None = None
        self._closed = False
        #: Whether the homeserver was asked about an identity that is not confirmed yet.
        self._was_asked_about = False
        #: For whatever waits for the database.
        self.threads: Final = threads_of(url)
        self._openings = Openings(threads_of(url, opening=True))
        self._one_opening = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.user_id or self.user} {self.device_id or 'without a device'}>"

    async def __aenter__(self) -> Self:
        self._closed = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self, *, take_over: bool = False) -> None:
        """Take the account over, if user and device id are known; else `login_or_restore` finds out.

        With an access token, from `restore_login`, it asks the homeserver before: see `check_identity`. Without one
        nothing is asked, and a program that works offline needs no homeserver. `take_over` takes an account back that
        this process has lost to another one.

        Raises ConfigurationError, WrongPickleKey and BackendUnavailable, and what else `Backend.open_store` raises;
        FencedOut for an account that this process has lost; AccessTokenRejected and HomeserverUnavailable; StoreClosed
        if `close` is called meanwhile. After an error nothing is taken over.
        """
        self._closed = False
        if self.store is None and self.user_id and self.device_id:
            await self._openings.run(
                self._open_account(Account(self.user_id, self.device_id), self._look, take_over=take_over)
            )

    async def _look(self, seen: Seen) -> None:
        """Ask about an account before it is taken over. Raises if it must not be."""

    async def _open_account(
        self, account: Account, ask: Callable[[Seen], Coroutine[Any, Any, None]], *, take_over: bool = False
    ) -> None:
        """Take this account over. It becomes the client's.

        If the account changes hands too often, this waits before. Cancelled until then, it takes nothing over.
        """
        async with self._one_opening:
            self._check_account(account.user_id, account.device_id)
            if self.store is not None:
                return
            if take_over:
                ProductionStore.take_back(account.user_id, account.device_id, self._url)
            question = Question(ask)
            try:
                self._use(await self._opened_in_turn(account, question.wait))
            finally:
                question.give_up()

    async def _opened_in_turn(self, account: Account, look: Look) -> _Opened:
        opened = await self._openings.in_thread(partial(self._read_in_turn, account, look), _close_again)
        if isinstance(opened, _Opened):
            return opened
        _log.warning(_CHANGES_HANDS, opened.pause, account, opened.owner)
        # Not in a thread: that could not be stopped, and would keep flushes waiting.
        await asyncio.sleep(opened.pause)
        return await self._openings.in_thread(partial(self._read_account, account, look, opened.history), _close_again)

    async def flush(self) -> None:
        """Make everything durable that changed before this call.

        Raises BackendUnavailable or StorageFull with everything kept for the next flush; FencedOut when another
        process has the account; DatabaseWentBack when a backup was put back under this client.
        """
        if self.store is not None:
            await self._buffer().flush()

    async def check_ownership(self) -> None:
        """Ask the database whether another process has taken the account over, in a thread.

        Raises FencedOut, naming who has it, DatabaseWentBack, and AccountNotFound if it was deleted; nothing is sent
        after that.
        """
        if self.store is not None:
            await self._buffer().check_ownership()

    async def close(self) -> None:
        """Flush, and give the connections and the account back. Closing twice is no error.

        An opening that is under way is given up and awaited. Raises what `flush` raises, after everything was given
        back.
        """
        self._closed = True
        try:
            await self._openings.end()
        finally:
            await self._close_store()

    async def _close_store(self) -> None:
        store = self.production_store if self.store is not None else None
        try:
            if store is not None:
                # A new identity that the homeserver was asked about, and did not confirm, leaves nothing behind.
                await self._buffer().stop(writes=store.is_confirmed or not self._was_asked_about)
        finally:
            self.store, self.olm, self._flusher = None, None, None
            await super().close()  # type: ignore[no-untyped-call]  # nio has no annotation
            if store is not None:
                await in_thread(self.threads, store.close)

    async def send(
        self,
        method: str,
        path: str,
        data: Any = None,
        headers: dict[str, str] | None = None,
        trace_context: Any | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # nio's own parameter
    ) -> ClientResponse:
        """Send a request, after everything that changed until now is durable.

        The one way to the homeserver. Raises what `flush` raises, with nothing sent, and ConfigurationError for a
        client that is logged in without a store: nio would send plaintext.
        """
        store = self.store
        if store is not None:
            await self._flush_before_sending()
        if self._closed or self.store is not store:
            raise StoreClosed("this client was closed; `await client.open()` opens it again")
        if store is None and self.access_token and self.needs_account(path):
            raise ConfigurationError(
                "this client has an access token but no open store: use `await client.login_or_restore(...)` or "
                "`client.restore_login(...)`"
            )
        response: ClientResponse = await super().send(method, path, data, headers, trace_context, timeout)
        return response

    @staticmethod
    def needs_account(path: str) -> bool:
        """Whether a request is made in the name of a device."""
        return not path.split("?")[0].endswith(_NEEDS_NO_ACCOUNT)

    async def _flush_before_sending(self) -> None:
        if self.production_store.is_confirmed:
            await self._buffer().flush()
        else:
            self._was_asked_about = True

    async def parse_body(self, transport_response: ClientResponse) -> dict[Any, Any]:
        """As nio's, but an answer that is not JSON is an error: nio takes it for an empty one, and so for a success."""
        try:
            parsed = await super().parse_body(transport_response)
        except (ValueError, LookupError, RecursionError):
            # No UTF-8, an unknown character set, an endless number, or too many brackets.
            parsed = {}
        if parsed or (transport_response.ok and (await transport_response.read()).strip() == b"{}"):
            return parsed
        return {"errcode": NOT_JSON, "error": f"HTTP status {transport_response.status} without a usable body"}

    def restore_login(self, user_id: str, device_id: str, access_token: str) -> None:
        """As nio's, but it reads nothing from the database: `open` does, or the first request.

        Raises ConfigurationError if this client was opened for another account, InvalidRecord for ids that no account
        has, and LocalProtocolError while it is being opened.
        """
        Account(user_id, device_id)
        self._check_account(user_id, device_id)
        self._check_openings()
        self.user_id, self.device_id, self.access_token = user_id, device_id, access_token
        self._closed = False

    def load_store(self) -> None:
        """Open the store here and now, as nio does: on the event loop, if it is called there. `open` uses a thread.

        It takes the account over without asking the homeserver. On the event loop it does not wait for its turn,
        however often the account changes hands.
        """
        if self.store is not None:
            return
        self._check_openings()
        account = Account(self.user_id, self.device_id or "")
        if _is_loop_running():
            self.statistics.loop_reads += 1
            _log.warning("the database was opened on the event loop; `await client.open()` before keeps it free")
        opened = self._read_in_turn(account, look_no_further)
        if isinstance(opened, Turn):
            if not _is_loop_running():
                time.sleep(opened.pause)
            opened = self._read_account(account, look_no_further, opened.history)
        self._use(opened)

    def _read_in_turn(self, account: Account, look: Look, check: Check = _do_nothing) -> _Opened | Turn:
        """What is in the account, or how long to wait before it is read."""
        try:
            return self._read_account(account, look, None, check)
        except NotYetError as error:
            return error.turn

    def _read_account(
        self, account: Account, look: Look, history: TakeOvers | None, check: Check = _do_nothing
    ) -> _Opened:
        def look_and_check(seen: Seen) -> None:
            look(seen)
            # The caller may have gone meanwhile.
            check()

        store = ProductionStore(account, self._url, self._pickle_key, self.statistics, look_and_check, history)
        try:
            machine = ProductionOlm(store, self.statistics)
            return _Opened(store, machine, store.load_encrypted_rooms(), store.token_at_opening)
        except BaseException:
            store.close()
            raise

    def _use(self, opened: _Opened) -> None:
        self.user_id, self.device_id = opened.store.user_id, opened.store.device_id
        self.store, self.olm = opened.store, opened.machine
        self.encrypted_rooms = opened.encrypted_rooms
        self._was_asked_about = False
        # What an earlier opening of this client knew may be out of date: another process may have had the account.
        self.next_batch, self.loaded_sync_token = "", opened.token or ""
        self.rooms.clear()
        self.invited_rooms.clear()
        self._closed = False
        if _is_loop_running():
            # From now on, not from the first request: there may be none.
            self._buffer()

    def _buffer(self) -> Flusher:
        if self._flusher is None:
            self._flusher = Flusher(
                self.production_store,
                self.statistics,
                self._flush_interval,
                self._ownership_check_interval,
                self.threads,
            )
        return self._flusher

    @property
    def production_store(self) -> ProductionStore:
        """The open store. Raises StoreClosed if there is none."""
        if not isinstance(self.store, ProductionStore):
            raise StoreClosed("this client is not open")
        return self.store

    @property
    def machine(self) -> ProductionOlm:
        """The encryption machine. Raises StoreClosed if the store is not open."""
        if not isinstance(self.olm, ProductionOlm):
            raise StoreClosed("this client is not open")
        return self.olm

    def _check_openings(self) -> None:
        # Whichever came second would take the account from the first.
        if self.store is None and self._openings:
            raise LocalProtocolError("this client is being opened; await `open()`, or `close()`, before anything else")

    def _check_account(self, user_id: str, device_id: str) -> None:
        store = self.store
        if store is not None and (store.user_id, store.device_id) != (user_id, device_id):
            raise ConfigurationError(
                f"this client was opened for {store.user_id} {store.device_id}, not for {user_id} {device_id}; "
                "each device needs a client of its own"
            )


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
