"""What an account grows by: rows and bytes for each message, session, device and room, and for a day of a bot.

    python benchmarks/growth.py [--small] [--json FILE]

`ProductionMatrixClient` does the work, without a homeserver: real Olm and Megolm, an SQLite file, a PostgreSQL server.
Bytes are those of the file, or of the tables with their indexes; rows are those of the account.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from cryptostore import Account, Mode, open_backend
from cryptostore.nio import ProductionMatrixClient

# The database for tests is the one for measurements, too.
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "support"))
sys.path.append(str(Path(__file__).resolve().parent))
from postgres_database import PostgresDatabase, provided_database
from workers.client import Sender, machine_of, opened, read_message, save_sessions, shared_session
from workers.live_keys import devices
from workers.made_keys import DEVICE, PICKLE_KEY, USER, device_keys, key_id, room_ids
from workers.sizes import stored_bytes

ACCOUNT: Final = Account(USER, DEVICE)
#: What is done between two flushes.
FLUSHED_AT_ONCE: Final = 500

#: A bot's day: so many sessions begin, in which so many messages are read; in each of its rooms it begins a session of
#: its own and sends messages; and so many devices are new, with an Olm session each.
DAY: Final = {"sessions": 50, "messages": 20, "rooms": 10, "sent": 20, "devices": 2}
MEMBERS: Final = 40


@dataclass(frozen=True)
class Counts:
    """How much of each is made."""

    sessions: int = 5_000
    senders: int = 200
    devices: int = 5_000
    rooms: int = 500
    days: int = 10


SMALL: Final = Counts(sessions=100, senders=5, devices=100, rooms=50, days=1)


@dataclass(frozen=True)
class Size:
    """What an account takes."""

    rows: int
    bytes: int


@dataclass(frozen=True)
class Grown:
    """By how much an account has grown for one of what was made."""

    what: str
    rows: float
    bytes: float


Make = Callable[[ProductionMatrixClient], Awaitable[int]]


@dataclass(frozen=True)
class Place:
    """A database, as the workers know it."""

    name: str
    database: dict[str, str]
    settle: Callable[[], None]

    def size(self) -> Size:
        """What is in it now. Nobody has it open."""
        self.settle()
        with (
            open_backend(self.database["url"]) as backend,
            backend.open_store(ACCOUNT, Mode.READ, pickle_key=PICKLE_KEY) as store,
        ):
            rows = sum(1 for _ in store.stored_rows())
        return Size(rows, stored_bytes(self.database))

    async def grown(self, what: str, make: Make) -> Grown:
        """Let a client make something, and see what one of it takes."""
        before = self.size()
        async with opened(self.database) as client:
            number = await make(client)
            await client.flush()
        after = self.size()
        return Grown(what, (after.rows - before.rows) / number, (after.bytes - before.bytes) / number)


def senders(number: int) -> list[Sender]:
    """So many Megolm sessions of others."""
    rooms, numbers = room_ids(), random.Random()
    return [Sender(shared_session(), numbers.choice(rooms), key_id(numbers), key_id(numbers)) for _ in range(number)]


def new_sessions(made: list[Sender]) -> Make:
    """The keys come."""

    async def make(client: ProductionMatrixClient) -> int:
        save_sessions(client, made)
        return len(made)

    return make


def messages(made: list[Sender], each: int) -> Make:
    """So many messages of each session are read, one session after the other."""

    async def make(client: ProductionMatrixClient) -> int:
        for number, sender in enumerate(sender for sender in made for _ in range(each)):
            read_message(client, sender)
            if number % FLUSHED_AT_ONCE == 0:
                await client.flush()
        return len(made) * each

    return make


def known_devices(number: int) -> Make:
    """Members of encrypted rooms have so many devices."""

    async def make(client: ProductionMatrixClient) -> int:
        client.production_store.save_device_keys(devices(number))
        return number

    return make


def olm_sessions(number: int) -> Make:
    """An Olm session with each of so many devices."""

    async def make(client: ProductionMatrixClient) -> int:
        for _ in range(number):
            machine_of(client).create_session(key_id(random.Random()), key_id(random.Random()))
        return number

    return make


def rooms(number: int, sent: int = 1) -> Make:
    """A session of the client's own in each of so many rooms, which 40 devices are given, and messages in it."""
    members = {(user_id, device_id) for user_id, device_id, *_ in device_keys(MEMBERS)}

    async def make(client: ProductionMatrixClient) -> int:
        machine, names = machine_of(client), room_ids(number)
        client.production_store.save_encrypted_rooms(names)
        for room_id in names:
            machine.create_outbound_group_session(room_id)
            session = machine.outbound_group_sessions[room_id]
            session.shared = True
            session.users_shared_with.update(members)
            for _ in range(sent):
                machine.group_encrypt(room_id, {"type": "m.room.message", "content": {"body": "hello"}})
        return number

    return make


def days(number: int) -> Make:
    """So many days of a bot."""

    async def make(client: ProductionMatrixClient) -> int:
        for _ in range(number):
            made = senders(DAY["sessions"])
            for each in (
                new_sessions(made),
                messages(made, DAY["messages"]),
                rooms(DAY["rooms"], DAY["sent"]),
                olm_sessions(DAY["devices"]),
            ):
                await each(client)
                await client.flush()
        return number

    return make


async def growth(place: Place, counts: Counts) -> list[Grown]:
    """Everything, one after the other."""
    async with opened(place.database):
        pass
    one_hundred, five = senders(counts.senders), senders(counts.senders * 20)
    grown = [await place.grown("a Megolm session that came", new_sessions(senders(counts.sessions)))]
    await place.grown("", new_sessions([*one_hundred, *five]))
    steps: dict[str, Make] = {
        "a message read, 100 of a session": messages(one_hundred, 100),
        "a message read, 5 of a session": messages(five, 5),
        "a device of others": known_devices(counts.devices),
        "an Olm session": olm_sessions(counts.devices),
        f"a room, sent to {MEMBERS} devices": rooms(counts.rooms),
        "a day of a bot": days(counts.days),
    }
    return grown + [await place.grown(what, make) for what, make in steps.items()]


@contextmanager
def places(server: PostgresDatabase) -> Iterator[list[Place]]:
    """A new database of each kind."""
    schema = server.new_schema()

    def vacuum() -> None:
        with server.connect() as connection:
            connection.execute("VACUUM (ANALYZE)")

    url = server.url(schema)
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/keys.db"
        yield [
            Place("SQLite", {"url": f"sqlite:///{file}", "file": file}, lambda: None),
            Place("PostgreSQL", {"url": url, "libpq": url.partition("?")[0], "schema": schema, "file": ""}, vacuum),
        ]
    server.drop_schema(schema)


def shown(grown: dict[str, list[Grown]]) -> Table:
    """The table for people."""
    table = Table("one more", caption=f"a day of a bot: {json.dumps(DAY)}")
    for heading in ["rows", *(f"bytes, {place}" for place in grown)]:
        table.add_column(heading, justify="right")
    for each in zip(*grown.values(), strict=True):
        table.add_row(each[0].what, f"{each[0].rows:.3g}", *(f"{place.bytes:,.0f}" for place in each))
    return table


def main() -> None:
    """Measure, and show it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="see whether it works; the bytes say little then")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    given = parser.parse_args()
    with provided_database() as server, places(server) as measured:
        counts = SMALL if given.small else Counts()
        grown = {place.name: asyncio.run(growth(place, counts)) for place in measured}
    if given.json is not None:
        told: dict[str, Any] = {place: [asdict(each) for each in figures] for place, figures in grown.items()}
        given.json.write_text(json.dumps(told, indent=2) + "\n")
    Console().print(shown(grown))


if __name__ == "__main__":
    main()
