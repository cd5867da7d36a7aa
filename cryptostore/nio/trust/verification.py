"""One verification, as a program sees it: who it is with, what to compare, and what to decide."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from nio import LocalProtocolError

from cryptostore.errors import BackendUnavailable, CryptoStoreError, HomeserverUnavailable, VerificationCancelled
from cryptostore.logs import logger
from cryptostore.nio.client.pauses import growing_pause
from cryptostore.trust import exchange_contents as contents
from cryptostore.trust.emoji import Emoji
from cryptostore.trust.exchange import Exchange, Message, Phase, WrongPhase
from cryptostore.trust.exchange_contents import Code
from cryptostore.trust.sas import ShortAuth, key_ids

from .verification_lines import Line, NotSent
from .vouching import Known, NotVouched, UnknownDevice, Verified, Vouching

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0
#: Events of the other side that wait their turn; nobody needs as many.
_MOST_WAITING: Final = 100
#: Seconds for saying that the client is closed.
_FAREWELL: Final = 5.0

T = TypeVar("T")

_log: Final = logger(__name__)


class _Action(NamedTuple):
    """Something to do in turn, and who waits for it."""

    run: Callable[[], Awaitable[None]]
    done: asyncio.Future[None] | None = None


class Verification:
    """A verification with one user: `accept`, look at `comparison`, then `confirm` or `mismatch`; or `cancel`.

    Made by the client alone. What is decided is done in turn with what comes, by a task of its own: a homeserver or a
    database that is away is tried again until the verification has taken too long, which is ten minutes.
    """

    def __init__(
        self,
        exchange: Exchange,
        room_id: str,
        line: Line,
        vouching: Vouching,
        clock: Callable[[], float],
        at_end: Callable[[Verification], None],
    ) -> None:
        self._exchange = exchange
        self._line = line
        self._vouching = vouching
        self._clock = clock
        self._at_end = at_end
        #: The room it happens in; empty for to-device messages.
        self.room_id: Final = room_id
        #: Whether the other side may ask for the account's secrets, if it is another session of the account.
        self.shares_secrets = False
        #: Whether the other side knows how it ended, or cannot be told.
        self.is_settled = False
        #: What is known of the other side, once its keys were asked for.
        self.known: Known | None = None
        self._verified: Verified | None = None
        self._outbox: list[Message] = []
        self._inbox: asyncio.Queue[_Action] = asyncio.Queue()
        self._is_comparable = asyncio.Event()
        self._has_ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._says_farewell = False

    def __repr__(self) -> str:
        return f"<Verification {self.user_id} {self.device_id} {self._exchange.phase.name.lower()}>"

    @property
    def user_id(self) -> str:
        """Who it is with. It may be the account's own user, with another device."""
        return self._exchange.other.user_id

    @property
    def device_id(self) -> str:
        """With which device; empty until one has taken our request."""
        return self._exchange.other.device_id

    @property
    def transaction_id(self) -> str:
        """The id of the transaction, or of the request in a room."""
        return self._exchange.flow.transaction_id

    @property
    def we_asked(self) -> bool:
        """Whether this client asked."""
        return self._exchange.we_asked

    @property
    def is_own_account(self) -> bool:
        """Whether it is with another session of the account."""
        return self._exchange.other.user_id == self._exchange.own.user_id

    @property
    def phase(self) -> Phase:
        """How far it is."""
        return self._exchange.phase

    @property
    def emoji(self) -> tuple[Emoji, ...]:
        """Seven emoji with their names, to compare; none before they are known, or if the other side has none."""
        return self._exchange.short_auth.emoji if self._exchange.short_auth else ()

    @property
    def decimals(self) -> tuple[int, ...]:
        """Three numbers, to compare; none before they are known."""
        return self._exchange.short_auth.decimals if self._exchange.short_auth else ()

    @property
    def result(self) -> Verified | None:
        """What it has shown; None before its end, and if it was cancelled."""
        return self._verified if self._exchange.phase is Phase.DONE else None

    async def accept(self) -> None:
        """Take the other side's request. It has to be within two minutes.

        Raises LocalProtocolError if there is none to take, or if the verification has ended.
        """
        await self._do(self._accept)

    async def comparison(self) -> ShortAuth:
        """Wait for what to compare. Raises VerificationCancelled."""
        await self._is_comparable.wait()
        if self._exchange.short_auth is None:
            raise self._cancelled()
        return self._exchange.short_auth

    async def confirm(self, *, share_secrets: bool = False) -> None:
        """Both people see the same. `finished` tells when the other side has said so, too.

        `share_secrets` lets another session of this account have the account's cross-signing seeds and the key of the
        backup when it asks for them. It can do everything then that this account can.

        Raises LocalProtocolError if there is nothing to compare, or if the verification has ended.
        """

        async def confirmed() -> None:
            self._outbox += self._exchange.confirm()
            self.shares_secrets = share_secrets and self.is_own_account

        await self._do(confirmed)

    async def mismatch(self) -> None:
        """Both people do not see the same: somebody may be in between. Raises LocalProtocolError if it has ended."""
        await self._cancel(Code.MISMATCHED_SAS)

    async def cancel(self) -> None:
        """End it, or decline the request. Raises LocalProtocolError if it has ended."""
        await self._cancel(Code.USER)

    async def finished(self) -> Verified:
        """Wait for the end: both sides confirmed, and all that follows is signed, kept and said.

        `user` of the result says whether the other user is verified; without it only a device is. Raises
        VerificationCancelled.
        """
        await self._has_ended.wait()
        if self.result is None:
            raise self._cancelled()
        return self.result

    def begin(self, context: Context) -> None:
        """Do what comes, in a task."""
        self._task = asyncio.get_running_loop().create_task(self._run(), context=context)

    def take_in(self, event_type: str, content: Mapping[str, Any]) -> None:
        """An event of the other side came."""

        async def came() -> None:
            self._outbox += self._exchange.receive(event_type, content)
            if event_type == contents.READY and self._exchange.phase is Phase.READY:
                await self._line.tell_others(self._exchange.other)
                await self._learn_and(self._exchange.start)

        if self._inbox.qsize() < _MOST_WAITING:
            self._inbox.put_nowait(_Action(came))

    def end_with(self, code: Code) -> None:
        """End it in turn."""

        async def ended() -> None:
            self._outbox += self._exchange.cancel(code)

        self._inbox.put_nowait(_Action(ended))

    def taken_by_sibling(self) -> None:
        """Another session of the account took the request, or declined it. Nothing is sent."""

        async def taken() -> None:
            if self._exchange.phase is Phase.REQUESTED:
                self._exchange.taken_by_another()

        self._inbox.put_nowait(_Action(taken))

    async def close(self, *, says_so: bool) -> None:
        """The client is about to be closed: tell the other side, if it is wanted and quick."""
        if self._task is None or self._task.done():
            return
        self._says_farewell = says_so
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _do(self, run: Callable[[], Awaitable[None]]) -> None:
        if self._has_ended.is_set():
            raise self._too_late()
        done = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait(_Action(run, done))
        await done

    async def _cancel(self, code: Code) -> None:
        async def cancelled() -> None:
            self._outbox += self._exchange.cancel(code)

        await self._do(cancelled)

    async def _accept(self) -> None:
        if self._exchange.phase is not Phase.REQUESTED or self.we_asked:
            raise WrongPhase("there is no request to accept")
        await self._learn_and(self._exchange.take)

    async def _run(self) -> None:
        try:
            while not self._exchange.has_ended:
                await self._do_one(await self._next())
            self.is_settled = True
        except asyncio.CancelledError:
            if self._says_farewell:
                await self._say_farewell()
        except CryptoStoreError as error:
            _log.warning("gave up a verification with %s: %s", self.user_id, error)
        except Exception:  # noqa: BLE001  # whatever the other side's events made raise ends this verification alone
            _log.exception("a verification with %s failed", self.user_id)
        finally:
            self._exchange.cancel()
            self._conclude()

    async def _next(self) -> _Action:
        left = self._exchange.expires_at - self._clock()
        with suppress(TimeoutError):
            return await asyncio.wait_for(self._inbox.get(), max(left, 0))
        return _Action(self._expire)

    async def _expire(self) -> None:
        self._outbox += self._exchange.expire(self._clock())

    async def _do_one(self, action: _Action) -> None:
        problem: Exception | None = self._too_late()
        try:
            problem = await self._done(action)
        except NotSent as error:
            _log.warning("gave up a verification with %s: the homeserver does not send: %s", self.user_id, error)
            self._exchange.cancel()
        finally:
            if self._exchange.short_auth is not None:
                self._is_comparable.set()
            _tell(action, problem)

    async def _done(self, action: _Action) -> Exception | None:
        """Do something, and what follows; returns why that cannot be done now."""
        try:
            await action.run()
        except WrongPhase as error:
            return LocalProtocolError(f"{error} in this verification")
        await self._send_all()
        if self._exchange.phase is Phase.VERIFIED:
            await self._vouch()
            await self._send_all()
        return None

    async def _learn_and(self, go_on: Callable[[], list[Message]]) -> None:
        """Know the other side's keys before anything is agreed on."""
        other = self._exchange.other
        try:
            known = self.known = await self._persistently(partial(self._vouching.learn, other))
            device_key, master = known.olm_device.ed25519, known.identity.master_key if known.identity else None
            self._exchange.know(key_ids(other, device_key, master))
        except (UnknownDevice, ValueError) as error:
            _log.warning("cancelled a verification: %s", error)
            self._outbox += self._exchange.cancel(Code.KEY_MISMATCH)
        else:
            self._outbox += go_on()

    async def _vouch(self) -> None:
        known, other = self.known, self._exchange.other
        if known is None:
            return
        try:
            vouch = partial(self._vouching.vouch, other, known, self._exchange.verified)
            self._verified = await self._persistently(vouch)
        except NotVouched as error:
            _log.warning("cancelled a verification at its end: %s", error)
            self._outbox += self._exchange.cancel()
        else:
            self._outbox += self._exchange.finish()

    async def _send_all(self) -> None:
        while self._outbox:
            message = self._outbox[0]
            await self._persistently(partial(self._line.send, message, self._exchange.other))
            self._outbox.pop(0)

    async def _persistently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Try again as long as the verification may last."""
        failures = 0
        while True:
            try:
                return await call()
            except (HomeserverUnavailable, BackendUnavailable) as error:
                failures += 1
                if self._clock() >= self._exchange.expires_at:
                    raise
                _log.debug("a verification with %s waits: %s", self.user_id, error)
            await asyncio.sleep(growing_pause(failures, _FIRST_PAUSE, _LONGEST_PAUSE))

    async def _say_farewell(self) -> None:
        messages = self._exchange.cancel()
        with suppress(TimeoutError, NotSent, CryptoStoreError):
            async with asyncio.timeout(_FAREWELL):
                for message in messages:
                    await self._line.send(message, self._exchange.other)
            self.is_settled = True

    def _conclude(self) -> None:
        self._is_comparable.set()
        self._has_ended.set()
        while not self._inbox.empty():
            _tell(self._inbox.get_nowait(), self._too_late())
        self._at_end(self)

    def _too_late(self) -> LocalProtocolError:
        return LocalProtocolError(f"the verification with {self.user_id} has ended")

    def _cancelled(self) -> VerificationCancelled:
        said = self._exchange.cancellation
        code, reason, by_us = said or ("", "", True)
        who = "here" if by_us else "by the other side"
        message = f"the verification with {self.user_id} was cancelled {who}: {code} {reason}"
        return VerificationCancelled(message, code=code, reason=reason, by_us=by_us)


def _tell(action: _Action, problem: Exception | None) -> None:
    """Tell who waits for it."""
    if action.done is None or action.done.done():
        return
    if problem is None:
        action.done.set_result(None)
    else:
        action.done.set_exception(problem)
