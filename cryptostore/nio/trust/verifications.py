"""All verifications of a client: who may begin one, which event belongs to which, and what a restart cut short."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from nio import MatrixRoom, SyncResponse

from cryptostore import records
from cryptostore.errors import ConfigurationError, CryptoStoreError, HomeserverUnavailable
from cryptostore.logs import logger
from cryptostore.nio.client.session import Session
from cryptostore.nio.pickles import if_valid
from cryptostore.nio.times import now
from cryptostore.trust import exchange_contents as contents
from cryptostore.trust.exchange import LIFE, Exchange, Message
from cryptostore.trust.exchange_contents import REASONS, Code, Flow
from cryptostore.trust.sas import DeviceId

from .requests import Requests
from .secret_sharing import SecretSharing
from .verification import Verification
from .verification_events import Incoming, between_devices, in_room
from .verification_limits import Limits
from .verification_lines import DeviceLine, Line, NotSent, RoomLine, check
from .vouching import Client, Vouching

#: Shows what to compare, and decides. It runs in a task of its own.
VerificationCallback = Callable[[Verification], Awaitable[None] | None]
#: The user and the transaction.
Key = tuple[str, str]

#: What says that the other side waits for an answer.
_GOES_ON: Final = (contents.READY, contents.ACCEPT, contents.KEY, contents.MACS)
#: Seconds that a request's clock may be ahead of this one's.
_AHEAD: Final = 300.0
#: Answers that come before the homeserver has said what id our request has.
_MOST_EARLY: Final = 50
#: The transactions that have ended and are remembered: what comes of them late is left alone.
_PAST: Final = 1_000

_log: Final = logger(__name__)


class Verifications:
    """The verifications that are under way. Without a callback, requests are declined."""

    def __init__(self, client: Client, session: Session, requests: Requests, sharing: SecretSharing) -> None:
        self._sharing = sharing
        self._client = client
        self._session = session
        self._requests = requests
        self._vouching = Vouching(client, session, requests)
        self._open: dict[Key, Verification] = {}
        self._past: OrderedDict[Key, None] = OrderedDict()
        #: What the former process of this account has left behind.
        self._cut: list[records.Verification] = []
        self._limits = Limits()
        self._callback: VerificationCallback | None = None
        #: Not that of a sync: what its events begin lives longer than their handling.
        self._context = contextvars.Context()
        self._tasks: set[asyncio.Task[None]] = set()
        #: How many requests of ours are on their way into rooms, and what came of answers before their ids did.
        self._asking = 0
        self._early: list[Incoming] = []
        #: A clock that only goes forward, in seconds, and the time of day in seconds since 1970.
        self.clock: Callable[[], float] = time.monotonic
        self.time: Callable[[], float] = time.time

    def on_verification(self, callback: VerificationCallback | None) -> None:
        """Let `callback` decide about requests from now on; None declines them."""
        self._callback = callback
        self._context = contextvars.copy_context()

    @property
    def under_way(self) -> list[Verification]:
        """Those that have not ended."""
        return list(self._open.values())

    async def request(self, user_id: str, room_id: str | None, device_id: str | None) -> Verification:
        """Ask a user. Raises ConfigurationError for what cannot be asked, and HomeserverUnavailable."""
        if room_id is not None and device_id is not None:
            raise ConfigurationError("a verification is asked for in a room or of a device; give one of them")
        if room_id is not None:
            return await self._request_in_room(user_id, room_id)
        devices = [device_id] if device_id is not None else await self._vouching.devices_of(user_id)
        if not devices:
            raise ConfigurationError(f"{user_id} has no device that could be asked")
        flow = Flow(secrets.token_urlsafe(24), is_in_room=False)
        line = DeviceLine(self._requests, flow, devices)
        verification = self._make(flow, DeviceId(user_id, device_id or ""), "", line, we_asked=True)
        content = flow.of(contents.request(self._own.device_id, int(self.time() * 1000)))
        try:
            await line.send(Message(contents.REQUEST, content), DeviceId(user_id, device_id or ""))
        except NotSent as error:
            self._ended(verification)
            raise ConfigurationError(f"the homeserver does not let {user_id} be asked: {error}") from error
        except BaseException:
            # It may have been sent: the next process says that nobody goes on with it.
            self._ended(verification)
            raise
        self._begin(verification)
        return verification

    async def _request_in_room(self, user_id: str, room_id: str) -> Verification:
        content = contents.room_request(self._own.device_id, user_id)
        path = ("rooms", room_id, "send", "m.room.message", secrets.token_urlsafe(24))
        self._asking += 1
        try:
            answer = await self._requests.ask("PUT", *path, content=content)
            check(answer)
            flow = Flow(str(answer.content.get("event_id")), is_in_room=True)
            line = RoomLine(self._requests, room_id)
            verification = self._make(flow, DeviceId(user_id, ""), room_id, line, we_asked=True)
        except NotSent as error:
            raise ConfigurationError(f"the homeserver does not let {user_id} be asked in {room_id}: {error}") from error
        finally:
            self._asking -= 1
            early, self._early = self._early, []
        for incoming in early:
            self._in_room(incoming)
        self._begin(verification)
        return verification

    @property
    def _own(self) -> DeviceId:
        return self._vouching.own

    async def to_device(self, event: Any) -> None:
        """A to-device event came."""
        incoming = between_devices(event)
        if incoming is None or self._is_own_device(incoming):
            return
        key = (incoming.sender, incoming.flow.transaction_id)
        verification = self._open.get(key)
        if verification is not None:
            if not verification.room_id:
                verification.take_in(incoming.event_type, incoming.content)
        elif key in self._past:
            _log.debug("left an event of a verification alone that has ended")
        elif incoming.event_type in (contents.REQUEST, contents.START):
            self._asked(incoming)
        elif incoming.event_type in _GOES_ON:
            self._answer_unknown(incoming)

    async def room_event(self, event: Any, room: MatrixRoom) -> None:
        """An event of a room came."""
        incoming = in_room(event, room.room_id)
        if incoming is None:
            return
        if incoming.sender == self._client.user_id:
            self._account_said(incoming)
        else:
            self._in_room(incoming)

    def _in_room(self, incoming: Incoming) -> None:
        key = (incoming.sender, incoming.flow.transaction_id)
        verification = self._open.get(key)
        if verification is not None:
            if verification.room_id == incoming.room_id:
                verification.take_in(incoming.event_type, incoming.content)
        elif incoming.event_type == contents.REQUEST:
            if incoming.content.get("to") == self._client.user_id:
                self._asked(incoming)
        elif self._asking and len(self._early) < _MOST_EARLY:
            self._early.append(incoming)

    def _is_own_device(self, incoming: Incoming) -> bool:
        return (incoming.sender, incoming.content.get("from_device")) == self._own

    def _account_said(self, incoming: Incoming) -> None:
        """An event of the account's own user: of another session, or ours, which comes back."""
        if self._is_own_device(incoming):
            if incoming.event_type == contents.REQUEST:
                self._own_request_came(incoming)
            return
        if incoming.event_type not in (contents.READY, contents.CANCEL):
            return
        for verification in self.under_way:
            same = (verification.room_id, verification.transaction_id)
            if not verification.we_asked and same == (incoming.room_id, incoming.flow.transaction_id):
                verification.taken_by_sibling()

    def _own_request_came(self, incoming: Incoming) -> None:
        """A former process may have sent it, and not have lived to note its id: nobody goes on with it then."""
        try:
            key = (contents.text(incoming.content, "to"), incoming.flow.transaction_id)
        except ValueError:
            return
        is_known = self._asking or key in self._open or key in self._past
        if is_known or self.time() - incoming.asked_at >= LIFE:
            return
        row = if_valid(partial(_record, incoming.flow, DeviceId(key[0], ""), incoming.room_id))
        if row is not None:
            self._remember(key)
            self._cut.append(row)

    def _asked(self, incoming: Incoming) -> None:
        """Somebody asks, or begins without asking. Old requests, and those that this client cannot meet, wait for
        others of the account's clients."""
        age = self.time() - incoming.asked_at if incoming.event_type == contents.REQUEST else 0.0
        key = (incoming.sender, incoming.flow.transaction_id)
        if not -_AHEAD < age < LIFE or not _can_be_met(incoming) or key in self._past:
            return
        other = DeviceId(incoming.sender, incoming.content["from_device"])
        open_now = Counter(user for user, _ in self._open)
        if not self._limits.allow(incoming.sender, self.clock(), open_now):
            return
        rivals = [each for each in self.under_way if (each.user_id, each.device_id) == other]
        verification = self._make_asked(incoming, other, age)
        if verification is not None:
            self._decide(verification, rivals)

    def _make_asked(self, incoming: Incoming, other: DeviceId, age: float) -> Verification | None:
        flow = incoming.flow
        line: Line = DeviceLine(self._requests, flow, [other.device_id])
        if flow.is_in_room:
            line = RoomLine(self._requests, incoming.room_id)
        if if_valid(partial(_record, flow, other, incoming.room_id)) is None:
            return None
        start = incoming.content if incoming.event_type == contents.START else None
        return self._make(flow, other, incoming.room_id, line, we_asked=False, age=age, start=start)

    def _make(
        self,
        flow: Flow,
        other: DeviceId,
        room_id: str,
        line: Line,
        *,
        we_asked: bool,
        age: float = 0.0,
        start: Any = None,
    ) -> Verification:
        at = self.clock()
        keys = self._vouching.own_keys()
        exchange = Exchange(flow, self._own, keys, other, we_asked=we_asked, asked_at=at - age, now=at)
        if start is not None:
            exchange.came_with_start(start)
        verification = Verification(exchange, room_id, line, self._vouching, self.clock, self._ended)
        self._open[other.user_id, flow.transaction_id] = verification
        # Durable before anything is sent: the next process cancels what this one does not end.
        self._session.store.verifications.put(_record(flow, other, room_id))
        return verification

    def _begin(self, verification: Verification) -> None:
        verification.begin(self._context.copy())

    def _decide(self, verification: Verification, rivals: list[Verification]) -> None:
        self._begin(verification)
        if rivals:
            # The specification: who asks once more while a verification goes on gets neither.
            for each in [*rivals, verification]:
                each.end_with(Code.UNEXPECTED_MESSAGE)
        elif self._callback is not None:
            self._start(self._call_back(self._callback, verification))
        elif not (verification.is_own_account and self._has_other_sessions(verification)):
            _log.info("declined a verification that %s asked for: there is no callback", verification.user_id)
            verification.end_with(Code.USER)

    def _has_other_sessions(self, verification: Verification) -> bool:
        devices = self._session.machine.device_store.active_user_devices(self._client.user_id)
        return any(each.id not in (self._own.device_id, verification.device_id) for each in devices)

    async def _call_back(self, callback: VerificationCallback, verification: Verification) -> None:
        try:
            returned = callback(verification)
            if inspect.isawaitable(returned):
                await returned
        except Exception:  # noqa: BLE001  # whatever a program's callback raises
            _log.exception("the callback for verifications raised, so that with %s ends", verification.user_id)
            verification.end_with(Code.USER)

    def _start(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _answer_unknown(self, incoming: Incoming) -> None:
        """The other side goes on with what is not known here: say so, that it does not wait."""
        if self._limits.allow(incoming.sender, self.clock(), Counter()):
            self._start(self._say_unknown(incoming))
            self._remember((incoming.sender, incoming.flow.transaction_id))

    async def _say_unknown(self, incoming: Incoming) -> None:
        try:
            device_id = contents.text(incoming.content, "from_device")
        except ValueError:
            # Most of these events do not say which device sent them.
            device_id = "*"
        try:
            await self._say_cancelled(incoming.flow, DeviceId(incoming.sender, device_id), "")
        except (NotSent, CryptoStoreError) as error:
            _log.debug("could not say that a verification is unknown: %s", error)

    async def _say_cancelled(self, flow: Flow, other: DeviceId, room_id: str) -> None:
        code = Code.UNKNOWN_TRANSACTION
        message = Message(contents.CANCEL, flow.of(contents.cancel(code, REASONS[code])))
        line = RoomLine(self._requests, room_id) if room_id else DeviceLine(self._requests, flow, ["*"])
        await line.send(message, other)

    def _ended(self, verification: Verification) -> None:
        key = (verification.user_id, verification.transaction_id)
        if self._open.pop(key, None) is not None:
            self._remember(key)
        if self._session.is_open and verification.is_settled:
            self._session.store.verifications.drop(key)
        result, known = verification.result, verification.known
        if self._session.is_open and verification.is_own_account and result is not None and known is not None:
            may_ask = result.device and verification.shares_secrets
            self._sharing.verified(known.olm_device, is_identity=result.user and result.device, may_ask=may_ask)

    def _remember(self, key: Key) -> None:
        self._past[key] = None
        while len(self._past) > _PAST:
            self._past.popitem(last=False)

    def opened(self) -> None:
        """An account was opened. What its former process has begun is cancelled after the first sync."""
        self._open, self._past = {}, OrderedDict()
        kept = self._session.store.verifications
        for key in kept.unreadable:
            kept.forget(key)
        self._cut = list(kept.rows.values())
        for row in self._cut:
            self._remember((row.user_id, row.transaction_id))

    async def synced(self, _response: SyncResponse) -> None:
        """A sync was handled: the homeserver is there."""
        while self._cut:
            row = self._cut[0]
            flow = Flow(row.transaction_id, is_in_room=bool(row.room_id))
            try:
                await self._say_cancelled(flow, DeviceId(row.user_id, row.device_id), row.room_id)
            except HomeserverUnavailable as error:
                _log.warning("a verification that a restart cut short is not cancelled yet: %s", error)
                return
            except NotSent as error:
                _log.warning("a verification with %s was cut short by a restart: %s", row.user_id, error)
            self._cut.pop(0)
            self._session.store.verifications.drop(row.key)

    async def closing(self) -> None:
        """The client is about to be closed: tell the other sides, and end everything."""
        # A callback may close the client.
        tasks = self._tasks - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        # An account that is not open any more is another process's, which says it.
        ends = [each.close(says_so=self._session.is_open) for each in self.under_way]
        await asyncio.gather(*tasks, *ends, return_exceptions=True)


def _record(flow: Flow, other: DeviceId, room_id: str) -> records.Verification:
    return records.Verification(other.user_id, flow.transaction_id, other.device_id, room_id, now())


def _can_be_met(incoming: Incoming) -> bool:
    """Whether a request is well formed, and has a method that this client knows."""
    try:
        contents.text(incoming.content, "from_device")
        return incoming.event_type == contents.START or contents.has_method(incoming.content)
    except ValueError:
        return False
