"""What it costs to back room keys up, and to restore them: `ProductionMatrixClient` against a real Synapse.

Each step runs in a process of its own: a client fills its database and ends; backs up; and on a new device, with the
recovery key and an empty database, restores. Memory is what the step's process had at most, over what its client had
when it had synced and did nothing. A hold is the longest turn of the event loop, without what it waited for a
core that other processes had; the rest of what it was not computing it waited for the step's own threads. Python's
garbage collection of the whole process, the longest one, stands by itself. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from asyncio import events
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import vodozemac
from rich.console import Console
from rich.table import Table

from cryptostore import Changes, InboundGroupSession, KeyBackup, Mode, open_backend
from cryptostore.nio import ProductionMatrixClient
from cryptostore.records import Account
from cryptostore.trust import unpadded_base64
from cryptostore.trust.recovery_key import encode

# The homeserver for tests is the one for measurements, too.
sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
from homeserver import Homeserver
from homeserver_api import Api
from postgres_database import provided_database

PICKLE_KEY: Final = "a pickle key for measurements"
ROOMS: Final = 100
PIECE: Final = 5_000


@dataclass
class Step:
    """What a step's process is told."""

    name: str
    homeserver: str
    user_id: str
    password: str
    device_id: str
    store: str
    sessions: int
    recovery_key: str


class Holds:
    """How long the event loop is held, turn by turn."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.longest_computing = 0.0
        #: Python's own garbage collection, in whichever thread it happens: it holds up all of them.
        self.longest_collection = 0.0
        self._collecting = 0.0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch every turn inside the block."""
        run = vars(events.Handle)["_run"]

        def timed(handle: Any) -> None:
            started, computed, collected = time.perf_counter() - waited(), time.thread_time(), self._collecting
            run(handle)
            collecting = self._collecting - collected
            self.longest = max(self.longest, time.perf_counter() - waited() - started - collecting)
            self.longest_computing = max(self.longest_computing, time.thread_time() - computed - collecting)

        gc.callbacks.append(self._collected)
        try:
            with patch.object(events.Handle, "_run", timed):
                yield
        finally:
            gc.callbacks.remove(self._collected)

    def _collected(self, phase: str, _info: Any) -> None:
        if phase == "start":
            self._began = time.thread_time()
        else:
            lasted = time.thread_time() - self._began
            self._collecting += lasted
            self.longest_collection = max(self.longest_collection, lasted)


def waited() -> float:
    """How long this thread has waited for a core, in seconds: other processes had them all."""
    return int(Path(f"/proc/self/task/{threading.get_native_id()}/schedstat").read_text().split()[1]) / 1e9


def memory(name: str) -> int:
    """A figure of this process's memory, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def forget_peak() -> None:
    """The most memory is counted from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def new_sessions(count: int) -> Iterator[InboundGroupSession]:
    """Sessions as devices send them."""
    received_at = datetime.now(UTC)
    for number in range(count):
        inbound = vodozemac.InboundGroupSession(vodozemac.GroupSession().session_key)
        export = inbound.export_at(0)
        assert export is not None
        yield InboundGroupSession(
            room_id=f"!room{number % ROOMS}:example.org",
            session_id=inbound.session_id,
            sender_key=unpadded_base64.encode(number.to_bytes(32, "big")),
            session_key=unpadded_base64.decode(export.to_base64()),
            signing_key=unpadded_base64.encode(number.to_bytes(32, "little")),
            forwarding_chain=(),
            first_known_index=0,
            received_at=received_at,
        )


async def run(step: Step) -> dict[str, Any]:
    """Do a step; what it took."""
    client = ProductionMatrixClient(
        step.homeserver,
        step.user_id,
        step.device_id,
        store=step.store,
        pickle_key=PICKLE_KEY,
        recovery_key=step.recovery_key,
        env_file=None,
    )
    async with client:
        await client.login_or_restore(password=step.password)
        await client.sync()
        await asyncio.sleep(1)
        idle, holds, started = memory("VmRSS"), Holds(), time.perf_counter()
        forget_peak()
        with holds.watched():
            done = await _do(client, step.name)
        return {
            "seconds": time.perf_counter() - started,
            "idle": idle,
            "over_idle": memory("VmHWM") - idle,
            "hold": holds.longest,
            "hold_computing": holds.longest_computing,
            "collection": holds.longest_collection,
            "done": done,
        }


async def _do(client: ProductionMatrixClient, name: str) -> Any:
    if name == "back up":
        await client.back_up()
        return client.key_backup.version
    if name == "restore":
        return asdict(await client.restore_backup())
    return client.identity_state.name


def in_process(step: Step) -> dict[str, Any]:
    """The step, in a process of its own."""
    command = [sys.executable, __file__, "--step", json.dumps(asdict(step))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def fill(step: Step) -> None:
    """Put sessions into the database of a client that has ended."""
    account, sessions = Account(step.user_id, step.device_id), list(new_sessions(step.sessions))
    with open_backend(step.store) as backend, backend.open_store(account, Mode.OWN, pickle_key=PICKLE_KEY) as store:
        for start in range(0, len(sessions), PIECE):
            store.apply(Changes(sessions[start : start + PIECE]))
        # As if the account had never had a backup: all of it is to go up.
        store.apply(Changes(deletes=[(KeyBackup, ())]))


def measured(server: Homeserver, urls: list[str], sessions: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Both steps with so many sessions."""
    user, known = Api(server).register("backup"), encode(secrets.token_bytes(32))
    old = Step("begin", server.url, user.user_id, user.password, "OLD", urls[0], sessions, known)
    in_process(old)
    fill(old)
    yield "back up", in_process(replace(old, name="back up"))
    restored = in_process(replace(old, name="restore", device_id="NEW", store=urls[1]))
    assert restored["done"]["taken_in"] == sessions, restored
    yield "restore", restored


@contextmanager
def sqlite_urls() -> Iterator[list[str]]:
    """Two files that are not there yet."""
    with tempfile.TemporaryDirectory() as folder:
        yield [f"sqlite:///{folder}/{name}.db" for name in ("old", "new")]


@contextmanager
def postgres_urls() -> Iterator[list[str]]:
    """Two empty schemas of a server on this machine."""
    with provided_database() as database:
        yield [database.url(database.new_schema()) for _ in range(2)]


PLACES: Final = {"sqlite": sqlite_urls, "postgresql": postgres_urls}


def main() -> None:
    """Measure, and show the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--places", nargs="*", default=list(PLACES), choices=PLACES)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        logging.disable(logging.WARNING)
        sys.stdout.write(json.dumps(asyncio.run(run(Step(**json.loads(arguments.step))))) + "\n")
        return
    columns = ("seconds", "MiB idle", "MiB over idle", "hold, ms", "computing, ms", "collection, ms")
    table = Table("sessions", "database", "step", *columns)
    server = Homeserver()
    try:
        for sessions, place in product(arguments.sessions, arguments.places):
            with PLACES[place]() as urls:
                for name, figures in measured(server, urls, sessions):
                    sizes = [f"{figures[key] / 2**20:.0f}" for key in ("idle", "over_idle")]
                    holds = [f"{figures[key] * 1000:.1f}" for key in ("hold", "hold_computing", "collection")]
                    table.add_row(f"{sessions:,}", place, name, f"{figures['seconds']:.1f}", *sizes, *holds)
    finally:
        server.close()
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
