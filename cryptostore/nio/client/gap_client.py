"""What connects the gaps of a client with its requests and its callbacks."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from aiohttp import ClientResponse
from nio import AsyncClientConfig, MatrixRoom, SyncResponse

from cryptostore.errors import ConfigurationError, StoreClosed
from cryptostore.logs import logger
from cryptostore.nio.trust.backup_on_demand import PASSING
from cryptostore.records import IdentityChange, MissedEvents, Record

from .gap_filling import GapFiller
from .gap_messages import Answer, Messages, timeline_filter
from .gap_records import Plan
from .gap_walk import GapWalk
from .homeserver import request_headers
from .kept import KeptRecords
from .prefetch import Wanted
from .statistics import Statistics
from .store import ProductionStore
from .windows import RoomCalls

_log: Final = logger(__name__)

R = TypeVar("R", bound=Record)

#: What is called for events that reached no other callback, and for identities that changed.
MissedCallback = Callable[[MissedEvents], Awaitable[None] | None]
IdentityChangeCallback = Callable[[IdentityChange], Awaitable[None] | None]


class GapSettings(NamedTuple):
    """How much of a gap is fetched: the newest `limit` events a room, and those of the last `age` seconds; all if None.

    Raises ConfigurationError from `check`.
    """

    limit: int | None = None
    age: float | None = None

    def check(self) -> GapSettings:
        """These settings, if they can be."""
        if self.limit is not None and self.limit < 1:
            raise ConfigurationError("gap_limit is a number of events, 1 or more, or None for all")
        if self.age is not None and self.age <= 0:
            raise ConfigurationError("gap_age is a time in seconds, more than 0, or None for any")
        return self

    @property
    def oldest(self) -> int:
        """The earliest time of an event that is handed on, in milliseconds of the epoch; 0 for any."""
        return 0 if self.age is None else max(1, int((time.time() - self.age) * 1000))


class Client(Protocol):
    """What filling needs of a client."""

    user_id: str
    access_token: str
    config: AsyncClientConfig
    next_batch: str
    loaded_sync_token: str
    store: Any
    rooms: dict[str, MatrixRoom]
    encrypted_rooms: set[str]

    @property
    def statistics(self) -> Statistics:
        """What it counts."""

    @property
    def production_store(self) -> ProductionStore:
        """The open store."""

    async def send(self, method: str, path: str, data: Any = None, headers: Any = None) -> ClientResponse:
        """Send a request."""

    async def parse_body(self, transport_response: ClientResponse) -> dict[Any, Any]:
        """The body of an answer."""

    async def flush(self) -> None:
        """Make everything durable."""

    def prefetched(self, wanted: Wanted) -> AbstractAsyncContextManager[None]:
        """Have what is wanted in memory."""


class Asked(NamedTuple):
    """What a sync was asked with."""

    since: str
    filter: Any


class GapHandling:
    """The gaps of one client, whichever store it has open. One thing at a time changes records and runs callbacks.

    Inside `in_callbacks` callbacks of the client run.
    """

    def __init__(
        self,
        client: Client,
        settings: GapSettings,
        calls: RoomCalls,
        in_callbacks: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._client = client
        self._calls = calls
        self._in_callbacks = in_callbacks
        self._settings = settings.check()
        self._one_turn = asyncio.Lock()
        self._is_beside = False
        #: Who is told of what, until all of them have returned.
        self._callbacks: dict[type[Record], list[Callable[[Any], Awaitable[None] | None]]] = {
            MissedEvents: [],
            IdentityChange: [],
        }
        #: What the sync that is under way was asked with.
        self.asked: Asked | None = None
        #: Whether the rooms are known, without which no callback can run.
        self.has_rooms = False

    def plan(self, response: SyncResponse) -> Plan:
        """Which rooms of a sync are not handled with it."""
        since, sync_filter = self.asked or Asked(self._client.next_batch or self._client.loaded_sync_token, None)
        return self._client.production_store.gaps.plan(
            response,
            since,
            self._client.rooms if self.has_rooms else (),
            self._client.user_id,
            timeline_filter=sync_filter if isinstance(sync_filter, str) else timeline_filter(sync_filter),
            oldest=self._settings.oldest,
        )

    def keep(self, plan: Plan) -> None:
        """Keep what was planned, in the batch of the sync's token."""
        gaps = self._client.production_store.gaps
        self._client.statistics.gaps += gaps.keep(plan)
        self.has_rooms = True
        gaps.on_change()

    def add_callback(self, kind: type[Record], callback: MissedCallback | IdentityChangeCallback) -> None:
        """Call `callback` for each record of this kind, also for what waits to be told."""
        self._callbacks[kind].append(callback)
        if self._client.store is not None:
            self._client.production_store.gaps.on_change()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Nothing else is handled meanwhile. Raises StoreClosed if the client is closed before its turn."""
        store = self._client.store
        async with self._one_turn:
            if self._client.store is not store or store is None:
                raise StoreClosed("this client was closed; what its rooms lack will be asked for again")
            yield

    async def fill(self) -> None:
        """Fill what can be filled now, unless that is done beside the syncs."""
        if not self._is_beside and self.has_rooms and self._client.store is not None:
            await self._filler().run(for_ever=False)

    async def fill_beside(self, rounds: Coroutine[Any, Any, None]) -> None:
        """Fill what is open, and what comes, until `rounds` are over. The first error of either ends both."""
        self._is_beside = True
        syncing = asyncio.create_task(rounds)
        filling = asyncio.create_task(self._filler().run(for_ever=True))
        try:
            await asyncio.wait([syncing, filling], return_when=asyncio.FIRST_COMPLETED)
            if syncing.done() and not syncing.cancelled() and syncing.exception() is None:
                # What is in hand is handed on before.
                async with self._one_turn:
                    filling.cancel()
        finally:
            self._is_beside = False
            for task in (syncing, filling):
                task.cancel()
            outcomes = await asyncio.gather(syncing, filling, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
                raise outcome

    async def hand_on_late(self, room_id: str, events: list[Any]) -> None:
        """Decrypt messages whose key came after them, and run the callbacks for those that can be read now.

        What is done with is taken out of `events`. No sync brings the others again, so they are handed on also where a
        callback raises; the first such error is raised at the end.
        """
        raised: list[Exception] = []
        try:
            async with self._client.prefetched(_wanted_by(events, room_id)), self.turn():
                with self._in_callbacks():
                    await self._hand_on_each_late(room_id, events, raised)
            await self._client.flush()
        except PASSING:
            for error in raised[:1]:
                _log.error("a callback raised for a message that became readable", exc_info=error)
            raise
        if raised:
            raise raised[0]

    async def _hand_on_each_late(self, room_id: str, events: list[Any], raised: list[Exception]) -> None:
        while events and self._client.store is not None:
            try:
                await self._hand_on_one_late(room_id, events[0])
            except PASSING:
                raise
            except Exception as error:  # noqa: BLE001  # a callback's
                raised.append(error)
            del events[0]

    async def _hand_on_one_late(self, room_id: str, event: Any) -> None:
        room = self._room(room_id)
        plain = self._calls.decrypt(event, room_id, room, set())
        if plain is not None:
            await self._calls.on_event(plain, room)

    def _filler(self) -> GapFiller:
        store = self._client.production_store
        return GapFiller(store.gaps, partial(self._new_walk, store), self._tell, lambda: self.has_rooms)

    def _new_walk(self, store: ProductionStore) -> Callable[[str], Awaitable[None]]:
        messages = Messages(self._ask, self._client.user_id)
        walk = GapWalk(store.gaps, messages, self._hand_on, self._alone, self._client.user_id, self._settings.limit)

        async def step(room_id: str) -> None:
            await walk.step(room_id)
            await self._client.flush()

        return step

    async def _ask(self, path: str) -> Answer:
        self._client.statistics.gap_requests += 1
        headers = request_headers(self._client.config, self._client.access_token)
        response = await self._client.send("GET", path, None, headers)
        return Answer(response.status, await self._client.parse_body(response))

    async def _alone(self, change: Callable[[], None]) -> None:
        async with self.turn():
            change()

    async def _hand_on(
        self, room_id: str, events: list[Any], is_wanted: Callable[[Any], bool], passed: Callable[[Any], None]
    ) -> None:
        async with self._client.prefetched(_wanted_by(events, room_id)), self.turn():
            with self._in_callbacks():
                for event in events:
                    await self._hand_on_one(room_id, event, is_wanted, passed)
        await self._client.flush()

    async def _hand_on_one(
        self, room_id: str, event: Any, is_wanted: Callable[[Any], bool], passed: Callable[[Any], None]
    ) -> None:
        if is_wanted(event):
            room = self._room(room_id)
            plain = self._calls.decrypt(event, room_id, room, set())
            await self._calls.on_event(plain or event, room)
            self._client.statistics.gap_events += 1
            if self._client.store is None:
                raise StoreClosed("this client was closed by a callback; the event will come again")
        passed(event)

    def _room(self, room_id: str) -> MatrixRoom:
        known = self._client.rooms.get(room_id)
        # A room that this account has left can be read up to then.
        return known or MatrixRoom(room_id, self._client.user_id, room_id in self._client.encrypted_rooms)

    async def _tell(self) -> None:
        """Tell the callbacks what was missed, and whose identity changed."""
        store = self._client.production_store
        await self._tell_all(store.gaps.missed, self._callbacks[MissedEvents])
        await self._tell_all(store.identities.changes, self._callbacks[IdentityChange])

    async def _tell_all(self, kept: KeptRecords[R], callbacks: list[Callable[[Any], Awaitable[None] | None]]) -> None:
        """Tell callbacks of what is kept. Each record is forgotten when all of them have returned."""
        for row in list(kept.rows.values()) if callbacks else []:
            async with self.turn():
                with self._in_callbacks():
                    for callback in callbacks:
                        if inspect.isawaitable(outcome := callback(row)):
                            await outcome
                # Another one may have taken its place meanwhile.
                if kept.rows.get(row.key) is row:
                    kept.drop(row.key)
            await self._client.flush()


def _wanted_by(events: Iterable[Any], room_id: str) -> Wanted:
    """What decrypting these events looks up."""
    wanted = Wanted()
    for event in events:
        wanted.add_message(event, room_id)
    return wanted
