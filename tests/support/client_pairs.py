"""Two people with a client each, for tests of ProductionMatrixClient."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import AsyncIterator, Container, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from nio import AsyncClientConfig, MatrixRoom, RoomMessageText, RoomSendResponse, SyncResponse

from cryptostore import Account, BackendUnavailable, Changes, Mode, OutboundGroupSession, Record, open_backend
from cryptostore.nio import ProductionMatrixClient
from cryptostore.nio.client import prefetch
from cryptostore.nio.client.store import ProductionStore
from cryptostore_contract.samples import KEY
from small_homeserver import SmallHomeserver, small_homeserver

R = TypeVar("R", bound=Record)

ROOM = "!room:small"
ALICE = Account("@alice:small", "ALICEPHONE")
BOB = Account("@bob:small", "BOBPHONE")

CONFIG = AsyncClientConfig(max_timeouts=0)


class Person:
    """Somebody's client, restarted as often as a test likes."""

    def __init__(self, server: SmallHomeserver, account: Account, url: str, **options: Any) -> None:
        self.server = server
        self.account = account
        self.url = url
        self.read: list[str] = []
        self.options = {"flush_interval": 60.0, "config": CONFIG, **options}
        self.client = self._make()

    def _make(self) -> ProductionMatrixClient:
        client = ProductionMatrixClient(self.server.url, *self._names(), store=self.url, pickle_key=KEY, **self.options)
        client.add_event_callback(self._note, RoomMessageText)
        return client

    def _names(self) -> tuple[str, str]:
        return self.account.user_id, self.account.device_id

    async def _note(self, _room: MatrixRoom, event: Any) -> None:
        self.read.append(event.body)

    async def start(self) -> Person:
        """Open the account and log in as the device."""
        token = f"token of {self.account.device_id}"
        self.server.tokens[token] = self._names()
        await self.client.open()
        self.client.restore_login(*self._names(), token)
        return self

    async def restart(self) -> None:
        """Close and start again."""
        await self.client.close()
        self.client = self._make()
        await self.start()

    async def come_back_after_a_crash(self) -> None:
        """A new process takes over; the old one never wrote again."""
        old, self.client = self.client, self._make()
        await self.start()
        await abandon(old)

    async def round(self) -> None:
        """One round of what `sync_forever` does."""
        response = await self.client.sync()
        assert isinstance(response, SyncResponse), response
        await self.errands()

    async def errands(self) -> None:
        """The requests between two syncs."""
        client = self.client
        await client.send_to_device_messages()
        if client.should_upload_keys:
            await client.keys_upload()
        if client.should_query_keys:
            await client.keys_query()
        if client.should_claim_keys:
            await client.keys_claim(client.get_users_for_key_claiming())

    async def say(self, text: str, tx_id: str | None = None) -> str:
        """Send a message to the room."""
        content = {"msgtype": "m.text", "body": text}
        sent = await self.client.room_send(ROOM, "m.room.message", content, tx_id, ignore_unverified_devices=True)
        assert isinstance(sent, RoomSendResponse), sent
        return str(sent.event_id)

    def stored(self, kind: type[R]) -> list[R]:
        """What the database holds of one kind, through a handle of its own."""
        with open_backend(self.url) as backend, backend.open_store(self.account, Mode.READ, pickle_key=KEY) as store:
            return store.select(kind, [()])[()]

    @property
    def store(self) -> ProductionStore:
        """The client's store."""
        return self.client.production_store


def session_ids(server: SmallHomeserver) -> list[str]:
    """The Megolm session of each message in the room, in their order."""
    contents = [event["content"] for _, event in server.timeline[ROOM]]
    return [content["session_id"] for content in contents if "session_id" in content]


def stored_session(person: Person, **fields: Any) -> None:
    """Change what the database holds of the room's key, while the person's client is closed."""
    (row,) = person.stored(OutboundGroupSession)
    changed = {name: change(getattr(row, name)) for name, change in fields.items()}
    with open_backend(person.url) as backend, backend.open_store(person.account, pickle_key=KEY) as store:
        store.apply(Changes([replace(row, **changed)]))


async def while_down(alice: Person, **fields: Any) -> None:
    """As `stored_session`, with a client of the person's that begins again."""
    await alice.client.close()
    stored_session(alice, **fields)
    alice.client = alice._make()
    await alice.start()
    await alice.client.sync()


def say_in_new_sessions(alice: Person, texts: list[str]) -> None:
    """Messages of Alice's in a Megolm session each, whose keys are sent to Bob one by one."""
    machine = alice.client.machine
    for text in texts:
        machine.create_outbound_group_session(ROOM)
        ((_, content),) = machine.share_group_session_parallel(ROOM, [BOB.user_id])
        machine.outbound_group_sessions[ROOM].shared = True
        alice.server._send_to_device(ALICE.user_id, "m.room.encrypted", content["messages"])
        kind, encrypted = alice.client.encrypt(ROOM, "m.room.message", {"msgtype": "m.text", "body": text})
        alice.server._say((ALICE.user_id, ALICE.device_id), ROOM, kind, f"transaction of {text}", encrypted)


async def abandon(client: ProductionMatrixClient) -> None:
    """Give a client's connections back without a flush, as a killed process would."""
    session, store = client._session, client.store
    flusher, session._flusher, session._opened = session._flusher, None, None
    client.store, client.olm = None, None
    if flusher is not None and flusher._timer is not None:
        flusher._timer.cancel()
    await client.close()
    if isinstance(store, ProductionStore):
        store.close()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Somebody else holds the write lock of the SQLite file: no batch is committed."""
    with closing(sqlite3.connect(folder / "keys.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def lockable(folder: Path) -> str:
    """The URL of a database for `locked`."""
    return f"sqlite:///{folder}/keys.db?deadline=1"


def away_for_messages(patch: pytest.MonkeyPatch, times: Container[int]) -> None:
    """The database is away when it is asked for the keys of messages for the time of these numbers, from 1 on."""
    fetch, count = prefetch.fetch, itertools.count(1)

    def fetch_or_fail(store: ProductionStore, wanted: prefetch.Wanted) -> prefetch.Fetched:
        if wanted.group_sessions and next(count) in times:
            raise BackendUnavailable("away")
        return fetch(store, wanted)

    patch.setattr(prefetch, "fetch", fetch_or_fail)


@asynccontextmanager
async def people(url: str, bob_url: str = "", **options: Any) -> AsyncIterator[tuple[SmallHomeserver, Person, Person]]:
    """Alice and Bob in one encrypted room, who know each other's devices. Without `bob_url` they share a database."""
    async with small_homeserver() as server:
        server.make_room(ROOM, ALICE.user_id, BOB.user_id)
        alice, bob = Person(server, ALICE, url, **options), Person(server, BOB, bob_url or url, **options)
        try:
            for person in (alice, bob):
                await person.start()
                await person.round()
            for person in (alice, bob):
                await person.round()
            yield server, alice, bob
        finally:
            for person in (alice, bob):
                await person.client.close()
