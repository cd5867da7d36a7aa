"""What one sync full of room keys costs: `ProductionMatrixClient` on SQLite and PostgreSQL beside a stock nio client.

Everything is real: HTTP on loopback, Olm and Megolm, files that are flushed, a PostgreSQL server. Each client is opened
again afterwards and must read a message of every room key, or the run ends with an error.

Commits are those that changed something. nio's are counted by SQLite itself, in the header of the file; ours on SQLite
where its library is called, and on PostgreSQL on the wire. A sync's time holds the homeserver's answer, too, which is
the same for all.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import sqlite3
import statistics
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch
from uuid import uuid4

from nio import AsyncClient, AsyncClientConfig, MatrixRoom, RoomMessageText, SyncResponse
from nio.store import SqliteStore
from rich.console import Console
from rich.table import Table

from cryptostore.nio import ProductionMatrixClient
from cryptostore_contract.proxy import Proxy

# The homeserver and the database for tests are those for measurements, too.
sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
from client_pairs import ALICE, BOB, CONFIG, ROOM, Person
from postgres_database import PostgresDatabase, provided_database
from postgres_wire import Wire
from small_homeserver import SmallHomeserver, small_homeserver

TOKEN: Final = "a token for measurements"  # noqa: S105  # of a homeserver that ends with the run
PICKLE_KEY: Final = "a pickle key for measurements"
WRITES: Final = ("INSERT", "UPDATE", "DELETE", "REPLACE")


@dataclass
class Cost:
    """What one sync asked of a database."""

    commits: int = 0
    statements: int = 0
    #: None for a library in the same process, which has none.
    round_trips: int | None = None


class TracedSQLite:
    """Counts what every SQLite connection of this process is asked for."""

    def __init__(self) -> None:
        self.cost = Cost()
        self._connect: Final = sqlite3.connect

    def connect(self, *args: Any, **kwargs: Any) -> sqlite3.Connection:
        """As `sqlite3.connect`."""
        connection: sqlite3.Connection = self._connect(*args, **kwargs)
        has_written = False

        def note(statement: str) -> None:
            nonlocal has_written
            word = statement.lstrip().partition(" ")[0].upper()
            self.cost.statements += 1
            self.cost.commits += has_written and word == "COMMIT"
            has_written = word in WRITES or (has_written and word not in ("COMMIT", "ROLLBACK"))

        connection.set_trace_callback(note)
        return connection


class Subject(ABC):
    """A client with a database of its own."""

    def __init__(self, name: str) -> None:
        self.name: Final = name

    @abstractmethod
    async def open(self, server: SmallHomeserver) -> AsyncClient:
        """The client as a new process would open it, logged in."""

    @contextlib.contextmanager
    def counting(self) -> Iterator[Callable[[], Cost]]:
        """A block in which clients are counted; calling what it gives tells the cost since the last call."""
        traced = TracedSQLite()

        def since_last() -> Cost:
            cost, traced.cost = traced.cost, Cost()
            return cost

        with patch.object(sqlite3, "connect", traced.connect):
            yield since_last

    async def close(self, client: AsyncClient) -> None:
        """Give everything back."""
        await client.close()


class Stock(Subject):
    """matrix-nio's own client and store."""

    def __init__(self, folder: Path) -> None:
        super().__init__("nio, SqliteStore")
        self._folder = folder

    async def open(self, server: SmallHomeserver) -> AsyncClient:
        self._folder.mkdir(exist_ok=True)
        config = AsyncClientConfig(
            max_timeouts=0, store=SqliteStore, store_sync_tokens=True, pickle_key=PICKLE_KEY, encryption_enabled=True
        )
        client = AsyncClient(server.url, BOB.user_id, BOB.device_id, str(self._folder), config)
        client.restore_login(BOB.user_id, BOB.device_id, TOKEN)
        return client

    async def close(self, client: AsyncClient) -> None:
        store: Any = client.store
        await super().close(client)
        store.database.close()

    @contextlib.contextmanager
    def counting(self) -> Iterator[Callable[[], Cost]]:
        before = 0

        def since_last() -> Cost:
            nonlocal before
            cost, now = traced(), self._changes()
            # Most of nio's statements are a transaction each, and some of those change nothing.
            cost.commits, before = now - before, now
            return cost

        with super().counting() as traced:
            yield since_last

    def _changes(self) -> int:
        """SQLite's own count of the transactions that changed the file ("Database File Format", 1.3.7)."""
        (file,) = self._folder.glob("*.db")
        return int.from_bytes(file.read_bytes()[24:28], "big")


class Ours(Subject):
    """`ProductionMatrixClient` on SQLite."""

    def __init__(self, name: str, url: str) -> None:
        super().__init__(name)
        self._url = url

    async def open(self, server: SmallHomeserver) -> AsyncClient:
        client = ProductionMatrixClient(
            server.url, BOB.user_id, BOB.device_id, store=self._url, pickle_key=PICKLE_KEY, config=CONFIG
        )
        await client.open()
        client.restore_login(BOB.user_id, BOB.device_id, TOKEN)
        return client


class OursOnPostgres(Ours):
    """`ProductionMatrixClient` on PostgreSQL, watched on the wire while it is counted."""

    def __init__(self, name: str, database: PostgresDatabase, schema: str) -> None:
        super().__init__(name, database.url(schema))
        self._database = database
        self._schema = schema

    @contextlib.contextmanager
    def counting(self) -> Iterator[Callable[[], Cost]]:
        direct, wire = self._url, Wire()

        def since_last() -> Cost:
            commits = sum(statement.text == "COMMIT" for statement in wire.statements)
            cost = Cost(commits, len(wire.statements), len(wire.waits))
            wire.forget()
            return cost

        with Proxy(self._database.address, tap=wire) as proxy:
            # In clear text, so that it can be read.
            self._url = f"{self._database.url(self._schema, proxy.port)}&sslmode=disable&gssencmode=disable"
            yield since_last
            self._url = direct


async def settle(client: AsyncClient) -> None:
    """One round of what `sync_forever` does."""
    response = await client.sync(full_state=True)
    if not isinstance(response, SyncResponse):
        raise TypeError(f"the sync failed: {response}")
    if client.should_upload_keys:
        await client.keys_upload()
    if client.should_query_keys:
        await client.keys_query()


def send_room_keys(alice: Person, count: int) -> list[tuple[str, dict[str, Any]]]:
    """Send the keys of new Megolm sessions to Bob, and return a message of each that was not sent yet."""
    machine, messages = alice.client.machine, []
    for number in range(count):
        machine.create_outbound_group_session(ROOM)
        ((_, content),) = machine.share_group_session_parallel(ROOM, [BOB.user_id])
        machine.outbound_group_sessions[ROOM].shared = True
        alice.server._send_to_device(ALICE.user_id, "m.room.encrypted", content["messages"])  # noqa: SLF001  # ours
        messages.append(alice.client.encrypt(ROOM, "m.room.message", {"msgtype": "m.text", "body": str(number)}))
    return messages


async def one_sync(subject: Subject, keys: int, cost: Callable[[], Cost]) -> tuple[float, Cost]:
    """Let a sync bring so many room keys. Returns its seconds and its cost, after all keys were found again."""
    async with small_homeserver() as server:
        server.page_size = keys
        server.make_room(ROOM, ALICE.user_id, BOB.user_id)
        server.tokens[TOKEN] = (BOB.user_id, BOB.device_id)
        alice, bob = Person(server, ALICE, f"memory://{uuid4()}"), await subject.open(server)
        await alice.start()
        for _ in range(2):
            await settle(bob)
            await alice.round()
        await alice.say("the first makes the Olm session")
        await settle(bob)
        messages = send_room_keys(alice, keys)
        await alice.client.close()

        cost()
        started = time.perf_counter()
        await bob.sync()
        seconds, spent = time.perf_counter() - started, cost()
        await subject.close(bob)
        await _check(subject, server, messages)
    return seconds, spent


async def _check(subject: Subject, server: SmallHomeserver, messages: list[tuple[str, dict[str, Any]]]) -> None:
    read: set[str] = set()

    async def note(_room: MatrixRoom, event: Any) -> None:
        read.add(event.body)

    bob = await subject.open(server)
    bob.add_event_callback(note, RoomMessageText)
    for number, (kind, content) in enumerate(messages):
        server._say((ALICE.user_id, ALICE.device_id), ROOM, kind, str(number), content)  # noqa: SLF001  # ours
    await settle(bob)
    await subject.close(bob)
    missing = {str(number) for number in range(len(messages))} - read
    if missing:
        raise RuntimeError(f"{subject.name} lost {len(missing)} of {len(messages)} room keys")


async def count(make: list[Callable[[], Subject]], keys: int) -> list[Cost]:
    """The cost of one sync with so many room keys, for each subject."""
    costs = []
    for subject in (each() for each in make):
        with subject.counting() as since_last:
            costs.append((await one_sync(subject, keys, since_last))[1])
    return costs


async def measure(make: list[Callable[[], Subject]], keys: int, runs: int) -> list[float]:
    """The median of the seconds of one sync. The subjects take turns: a busy moment of the machine hits all."""
    seconds: list[list[float]] = [[] for _ in make]
    for _ in range(runs):
        for timings, each in zip(seconds, make, strict=True):
            timings.append((await one_sync(each(), keys, Cost))[0])
    return [statistics.median(timings) for timings in seconds]


def report(names: list[str], rows: dict[str, list[float | None]]) -> Table:
    """The figures, and how they compare with the first column."""
    table = Table(title="One sync; in brackets, the first column's figure divided by this one")
    table.add_column("measurement")
    for name in names:
        table.add_column(name, justify="right")
    for label, figures in rows.items():
        table.add_row(label, *(_cell(figure, figures[0]) for figure in figures))
    return table


def _cell(figure: float | None, base: float | None) -> str:
    if figure is None:
        return "-"
    shown = f"{figure:,}" if isinstance(figure, int) else f"{figure * 1000:.0f} ms"
    if base in (None, figure) or not figure:
        return shown
    ratio = base / figure
    return f"{shown} ({ratio:,.0f})" if ratio >= 100 else f"{shown} ({ratio:.3g})"  # two more digits say nothing


def subjects(folder: Path, database: PostgresDatabase, schemas: list[str]) -> list[Callable[[], Subject]]:
    """What makes each subject on an empty database."""

    def new_place() -> Path:
        return Path(tempfile.mkdtemp(dir=folder))

    def on_postgres() -> Subject:
        schemas.append(database.new_schema())
        return OursOnPostgres("ours, PostgreSQL", database, schemas[-1])

    return [
        lambda: Stock(new_place()),
        lambda: Ours("ours, SQLite", f"sqlite:///{new_place()}/keys.db"),
        on_postgres,
    ]


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=500, help="room keys of the sync that is counted (default: 500)")
    parser.add_argument("--timed-keys", type=int, default=60, help="room keys of those that are timed (default: 60)")
    parser.add_argument("--runs", type=int, default=5, help="how often each client is timed (default: 5)")
    parser.add_argument("--folder", help="where the SQLite files go (default: a temporary folder)")
    arguments = parser.parse_args()
    # That a first message finds no Olm session with the other device is no news.
    logging.getLogger("nio").setLevel(logging.ERROR)
    schemas: list[str] = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder, provided_database() as database:
        make = subjects(Path(folder), database, schemas)
        costs = asyncio.run(count(make, arguments.keys))
        seconds = asyncio.run(measure(make, arguments.timed_keys, arguments.runs))
        for schema in schemas:
            database.drop_schema(schema)
    rows: dict[str, list[float | None]] = {
        f"{arguments.keys} room keys: commits": [cost.commits for cost in costs],
        f"{arguments.keys} room keys: statements": [cost.statements for cost in costs],
        f"{arguments.keys} room keys: round trips": [cost.round_trips for cost in costs],
        f"{arguments.timed_keys} room keys: time": [*seconds],
    }
    Console().print(report(["nio, SqliteStore", "ours, SQLite", "ours, PostgreSQL"], rows))


if __name__ == "__main__":
    main()
