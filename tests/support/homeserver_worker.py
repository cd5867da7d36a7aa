"""One client in a process of its own: takes commands as lines of JSON, and tells what it reads in the same way.

A command is {"id", "do", ...}; its answer {"id", "result"} or {"id", "error", "text"}.
Lines with "event" come by themselves.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from nio import (
    AsyncClient,
    AsyncClientConfig,
    ErrorResponse,
    Event,
    KeysUploadResponse,
    MatrixRoom,
    MegolmEvent,
    MessageDirection,
    RoomMessageFormatted,
    RoomMessagesResponse,
    RoomMessageText,
    RoomSendResponse,
    SyncResponse,
    ToDeviceMessage,
    ToDeviceResponse,
)
from nio.store import SqliteStore

from cryptostore import MissedEvents
from cryptostore.nio import NioStore, ProductionMatrixClient, Pruning, transaction_id
from homeserver_points import Points, install, slow_down
from homeserver_trust import TrustCommands

_PAGE: Final = 500


@dataclass(frozen=True)
class WorkerConfig:
    """Who the client is, and where its keys are."""

    #: "production", "stock" (nio's client on NioStore) or "nio" (nio's client on its own SqliteStore).
    client: str
    homeserver: str
    user_id: str
    device_id: str
    #: A database's URL, or for nio's own store a folder.
    store: str
    pickle_key: str
    password: str = ""
    #: Stock clients are given a login; ours makes its own.
    access_token: str = ""
    #: How many events of a room our client fetches at most.
    gap_limit: int | None = None
    #: What opens the account's secret storage.
    recovery_key: str = ""
    #: Whose messages our client takes.
    accept: str = "all"


class Failed(RuntimeError):
    """The homeserver answered with an error."""


class Worker:
    """The client, and the commands that a test gives it."""

    def __init__(self, config: WorkerConfig, points: Points) -> None:
        self._config = config
        self._points = points
        self._client: Any = None
        self._trust: TrustCommands | None = None
        self._synced = False
        self._syncing: asyncio.Task[Any] | None = None
        self._loops: list[asyncio.Task[None]] = []
        self._go_on = asyncio.Event()

    async def do_start(self) -> dict[str, Any]:
        """Open the store and log in; who we are then."""
        self._client = await _opened(self._config)
        self._client.add_event_callback(self._tell_message, RoomMessageFormatted)
        self._client.add_event_callback(self._tell_undecrypted, MegolmEvent)
        if self._config.client == "production":
            self._client.add_missed_events_callback(_tell_missed)
            self._trust = TrustCommands(self._client, _tell)
        return self._identity()

    async def do_identity(self) -> dict[str, Any]:
        """Who we are."""
        return self._identity()

    async def do_sync(self, wait: float = 0) -> None:
        """One sync, with the requests that follow it in `sync_forever`."""
        self._syncing = asyncio.current_task()
        response = await self._client.sync(int(wait * 1000), full_state=not self._synced)
        _checked(response, SyncResponse)
        self._synced = True
        await self._client.send_to_device_messages()
        if self._client.should_upload_keys:
            _checked(await self._client.keys_upload(), KeysUploadResponse)
        if self._client.should_query_keys:
            await self._client.keys_query()
        if self._client.should_claim_keys:
            await self._client.keys_claim(self._client.get_users_for_key_claiming())

    async def do_cancel_sync(self) -> None:
        """Cancel the sync that is on its way."""
        assert self._syncing is not None
        self._syncing.cancel()

    async def do_sync_forever(self) -> None:
        """Begin to sync; an "ended" event says when and why it ends."""
        self._loops.append(asyncio.create_task(self._sync_forever()))

    async def _sync_forever(self) -> None:
        try:
            await self._client.sync_forever(timeout=1000, full_state=True)
        except Exception as error:  # noqa: BLE001  # whatever it is, the test wants to know
            _tell(event="ended", error=type(error).__name__, text=str(error))

    async def do_send(self, room: str, text: str, rotate: bool = False, tx_id: str | None = None) -> str:
        """Send a text; its event id. With `rotate` it has a Megolm session of its own."""
        if rotate:
            await self.do_rotate(room)
        content = {"msgtype": "m.text", "body": text}
        response = await self._client.room_send(
            room, "m.room.message", content, tx_id=tx_id, ignore_unverified_devices=True
        )
        return str(_checked(response, RoomSendResponse).event_id)

    async def do_history(self, room: str) -> dict[str, str | None]:
        """Every encrypted message that the homeserver has of a room: its text, or None where we cannot read it."""
        texts: dict[str, str | None] = {}
        start: str | None = ""
        while start is not None:
            page = _checked(
                await self._client.room_messages(room, start, direction=MessageDirection.front, limit=_PAGE),
                RoomMessagesResponse,
            )
            for event in page.chunk:
                if isinstance(event, MegolmEvent):
                    texts[event.event_id] = None
                elif isinstance(event, RoomMessageFormatted) and event.decrypted:
                    texts[event.event_id] = event.body
            start = page.end
        return texts

    async def do_arm(self, point: str, nth: int = 1) -> None:
        """Die by SIGKILL when a named point is passed the nth time."""
        self._points.arm(point, nth)

    async def do_passed(self) -> dict[str, int]:
        """How often each named point was passed."""
        return dict(self._points.passed)

    async def do_answer(self, derived: bool = False, wait: bool = False, sync: bool = False) -> None:
        """Answer every message of others; with `derived`, the answer's transaction id comes from the message's id.

        With `wait`, say "asked" and answer after "go_on" only; with `sync`, try to sync before.
        """

        async def answer(room: MatrixRoom, event: RoomMessageText) -> None:
            if event.sender == self._config.user_id or event.body.startswith("answer "):
                return
            self._points.reached("answer:before")
            if wait:
                _tell(event="asked", id=event.event_id)
                await self._go_on.wait()
            if sync:
                await self._client.sync()
            await self.do_send(
                room.room_id, f"answer {event.event_id}", tx_id=transaction_id(event) if derived else None
            )
            self._points.reached("answer:sent")

        self._client.add_event_callback(answer, RoomMessageText)

    async def do_go_on(self) -> None:
        """Let callbacks that wait go on, and later ones not wait."""
        self._go_on.set()

    async def do_upload(self) -> str:
        """Upload keys at once, however often that failed; the answer."""
        self._client._key_uploads._next = 0.0
        response = await self._client.keys_upload()
        return f"{type(response).__name__}: {response}"

    async def do_send_room_key(self, user: str, device: str, room: str) -> None:
        """Send a device a new room key for whatever room."""
        olm = self._client.olm
        olm.create_outbound_group_session(room)
        for _, content in olm.share_group_session_parallel(room, [user], ignore_unverified_devices=True):
            message = ToDeviceMessage("m.room.encrypted", user, device, content["messages"][user][device])
            _checked(await self._client.to_device(message), ToDeviceResponse)
        del olm.outbound_group_sessions[room]

    async def do_trust(self, user: str, device: str, how: str) -> None:
        """Verify, blacklist or ignore a device."""
        getattr(self._client, f"{how}_device")(self._client.device_store[user][device])

    async def do_devices(self, user: str) -> list[str]:
        """The devices of a user that we know and believe to be there."""
        return sorted(device.id for device in self._client.device_store.active_user_devices(user))

    async def do_outbound(self, room: str) -> str | None:
        """The Megolm session in which we write to a room."""
        session = self._client.olm.outbound_group_sessions.get(room)
        return None if session is None else str(session.id)

    async def do_shared_with(self, room: str) -> int:
        """How many devices were given the key of the Megolm session in which we write to a room."""
        return len(self._client.olm.outbound_group_sessions[room].users_shared_with)

    async def do_rotate(self, room: str) -> None:
        """Begin a new Megolm session with the next message."""
        self._client.invalidate_outbound_session(room)

    async def do_say_all(self, room: str, texts: list[str], rotate: bool = False) -> dict[str, str]:
        """Send texts one after the other; by their event ids."""
        return {await self.do_send(room, text, rotate): text for text in texts}

    async def do_flush(self) -> None:
        """Make everything durable."""
        await self._client.flush()

    async def do_prune(self, **ages: float) -> int:
        """Delete what is older than so many seconds, by rules of `Pruning`; how many records."""
        pruner, statistics = self._client._trust.pruner, self._client.statistics
        rules: Any = {rule: timedelta(seconds=age) for rule, age in ages.items()}
        pruner._settings = Pruning(**rules)
        before = int(statistics.pruned)
        await pruner.round()
        return int(statistics.pruned) - before

    async def do_statistics(self) -> dict[str, int]:
        """The client's own counts."""
        return {name: value for name, value in vars(self._client.statistics).items() if isinstance(value, int)}

    async def do_watch(self, delay: float) -> None:
        """From now on every call to the database takes so many seconds longer, and the event loop is watched."""
        slow_down(self._points, type(self._client.store._storage._store._database), delay)
        self._loops.append(asyncio.create_task(self._points.watch_loop()))
        await asyncio.sleep(0)

    async def do_watched(self) -> dict[str, float]:
        """What became of that."""
        points = self._points
        return {"calls": points.store_calls, "on the loop": points.loop_calls, "gap": points.longest_gap}

    async def do_close(self) -> None:
        """Close the client in good order."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self._client.close()
        if isinstance(self._client.store, NioStore):
            self._client.store.close()

    def _identity(self) -> dict[str, Any]:
        keys = self._client.olm.account.identity_keys
        return {
            "device_id": self._client.device_id,
            "keys": {"curve25519": keys["curve25519"], "ed25519": keys["ed25519"]},
        }

    async def _tell_message(self, room: MatrixRoom, event: RoomMessageFormatted) -> None:
        _tell(event="message", id=event.event_id, room=room.room_id, sender=event.sender, text=event.body)
        self._tell_trust(event)

    async def _tell_undecrypted(self, room: MatrixRoom, event: MegolmEvent) -> None:
        _tell(event="undecrypted", id=event.event_id, room=room.room_id, sender=event.sender)
        self._tell_trust(event)

    def _tell_trust(self, event: Event) -> None:
        if self._trust is not None:
            _tell(event="sender", id=event.event_id, trust=self._client.sender_trust(event))

    async def handle(self, line: str) -> None:
        """Carry one command out and answer it."""
        command = json.loads(line)
        number, name = command.pop("id"), command.pop("do")
        try:
            does = getattr(self, f"do_{name}", None) or getattr(self._trust, f"do_{name}")
            _tell(id=number, result=await does(**command))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # the test is told, and judges
            _tell(id=number, error=type(error).__name__, text=str(error))


async def _opened(config: WorkerConfig) -> Any:
    if config.client == "production":
        return await _production(config)
    store = SqliteStore if config.client == "nio" else NioStore
    settings = AsyncClientConfig(
        store=store, store_sync_tokens=True, pickle_key=config.pickle_key, max_timeouts=5, request_timeout=30
    )
    client = AsyncClient(config.homeserver, config.user_id, config.device_id, config.store, settings)
    client.restore_login(config.user_id, config.device_id, config.access_token)
    return client


async def _production(config: WorkerConfig) -> Any:
    client = ProductionMatrixClient(
        config.homeserver,
        config.user_id,
        device_id=config.device_id or None,
        store=config.store,
        pickle_key=config.pickle_key,
        env_file=None,
        config=AsyncClientConfig(max_timeouts=5, request_timeout=30),
        gap_limit=config.gap_limit,
        recovery_key=config.recovery_key or None,
        accept=config.accept,
    )
    if config.access_token:
        client.restore_login(config.user_id, config.device_id, config.access_token)
        await client.open()
    else:
        await client.login_or_restore(password=config.password or None)
    return client


def _checked(response: Any, wanted: type[Any]) -> Any:
    if isinstance(response, ErrorResponse) or not isinstance(response, wanted):
        raise Failed(str(response))
    return response


def _tell_missed(missed: MissedEvents) -> None:
    _tell(event="missed", room=missed.room_id, cause=str(missed.cause), count=missed.count)


def _tell(**told: Any) -> None:
    # One write for each line: a kill leaves no half of one.
    os.write(sys.stdout.fileno(), json.dumps(told).encode() + b"\n")


async def main() -> None:
    """Commands until standard input ends, which is also when the test dies."""
    loop = asyncio.get_running_loop()
    config = WorkerConfig(**json.loads(await loop.run_in_executor(None, sys.stdin.readline)))
    points = Points()
    install(points, ProductionMatrixClient if config.client == "production" else AsyncClient)
    worker = Worker(config, points)
    running: set[asyncio.Task[None]] = set()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        task = asyncio.create_task(worker.handle(line))
        running.add(task)
        task.add_done_callback(running.discard)
    os._exit(0)


def run() -> None:
    """Be a client, in this process."""
    asyncio.run(main())
