"""Measure `NioStore` on SQLite and PostgreSQL beside matrix-nio's own SqliteStore, all in one run.

Everything is real: Megolm sessions, pickles, files that are flushed, a PostgreSQL server. The numbers depend on the
machine and its disk; compare columns, not runs on different machines.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from nio.crypto import InboundGroupSession, Olm, OlmDevice, OutboundGroupSession
from nio.store import MatrixStore, SqliteStore
from rich.console import Console
from rich.table import Table

from cryptostore import Account, Changes, open_backend, records
from cryptostore.nio import NioStore

# The server for tests is the server for measurements, too.
sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
from postgres_database import provided_database  # found by the line above

USER: Final = "@bench:example.org"
PICKLE_KEY: Final = "a pickle key for measurements"
ROOMS: Final = 50
STARTED: Final = datetime.now(UTC)
DEVICES_OF_A_USER: Final = 20

#: Seconds by measurement, one for each run.
Timings = dict[str, list[float]]

#: By user id and device id.
Devices = dict[str, dict[str, OlmDevice]]


class Subject(ABC):
    """A store to measure."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def open(self, device_id: str) -> MatrixStore:
        """A new store object for a device."""

    @abstractmethod
    def one_batch(self, store: MatrixStore) -> AbstractContextManager[object]:
        """A block whose saves are one transaction."""

    @abstractmethod
    def close(self, store: MatrixStore) -> None:
        """Give the database back."""


class Nio(Subject):
    """What matrix-nio ships."""

    def __init__(self, folder: Path) -> None:
        super().__init__("nio SqliteStore")
        self._folder = folder

    def open(self, device_id: str) -> MatrixStore:
        return SqliteStore(USER, device_id, str(self._folder), PICKLE_KEY)

    def one_batch(self, store: MatrixStore) -> AbstractContextManager[object]:
        # nio itself never does this; without it, every session is a transaction of its own.
        block: AbstractContextManager[object] = store.database.atomic()
        return block

    def close(self, store: MatrixStore) -> None:
        store.database.close()


class Ours(Subject):
    """`NioStore` on one of our backends."""

    def __init__(self, name: str, url: str) -> None:
        super().__init__(name)
        self._url = url

    def open(self, device_id: str) -> MatrixStore:
        return NioStore(USER, device_id, self._url, PICKLE_KEY)

    def one_batch(self, store: MatrixStore) -> AbstractContextManager[object]:
        assert isinstance(store, NioStore)
        return store.batch()

    def close(self, store: MatrixStore) -> None:
        assert isinstance(store, NioStore)
        store.close()

    def apply(self, device_id: str, changes: Changes) -> None:
        """One batch on the interface itself, without nio above it."""
        with open_backend(self._url) as backend, backend.open_store(Account(USER, device_id)) as store:
            store.apply(changes)


def measure(subject: Subject, device_id: str, count: int) -> Timings:
    """One run on a device of its own."""
    seconds: Timings = {}
    sessions, devices = [_session(number) for number in range(count)], _devices(count)
    _measure_saving(subject, device_id, sessions, devices, seconds)
    _measure_opening(subject, device_id, sessions, seconds)
    _measure_loading(subject, device_id, count, seconds)
    if isinstance(subject, Ours):
        changes = Changes(map(_record, sessions))
        with _timed(seconds, f"open, and apply {count:,} session records without nio"):
            subject.apply(f"{device_id} without nio", changes)
    return seconds


def _measure_saving(
    subject: Subject, device_id: str, sessions: list[InboundGroupSession], devices: Devices, seconds: Timings
) -> None:
    store, count = subject.open(device_id), len(sessions)
    Olm(USER, device_id, store)  # makes the account
    with _timed(seconds, f"save {count:,} inbound sessions in one batch"), subject.one_batch(store):
        for session in sessions:
            store.save_inbound_group_session(session)
    with _timed(seconds, f"save {count:,} devices"):
        store.save_device_keys(devices)
    one_by_one = [_session(number) for number in range(100)]
    with _timed(seconds, "save 100 inbound sessions, one by one"):
        for session in one_by_one:
            store.save_inbound_group_session(session)
    subject.close(store)


def _measure_opening(subject: Subject, device_id: str, sessions: list[InboundGroupSession], seconds: Timings) -> None:
    with _timed(seconds, f"open with {len(sessions):,} sessions and devices"):
        store = subject.open(device_id)
        machine = Olm(USER, device_id, store)
    wanted = sessions[len(sessions) // 2]
    with _timed(seconds, "find one session after opening"):
        found = machine.inbound_group_store.get(wanted.room_id, wanted.sender_key, wanted.id)
    if found is None:
        raise RuntimeError(f"{subject.name} lost a session")
    subject.close(store)


def _measure_loading(subject: Subject, device_id: str, count: int, seconds: Timings) -> None:
    store = subject.open(device_id)
    with _timed(seconds, f"load {count:,} devices"):
        loaded = sum(1 for _ in store.load_device_keys())
    if loaded != count:
        raise RuntimeError(f"{subject.name} has {loaded} of {count} devices")
    subject.close(store)


def _record(session: InboundGroupSession) -> records.InboundGroupSession:
    return records.InboundGroupSession(
        session.room_id, session.id, session.sender_key, session.pickle(PICKLE_KEY), session.ed25519, (), 0, STARTED
    )


def _session(number: int) -> InboundGroupSession:
    key = OutboundGroupSession().session_key
    return InboundGroupSession(key, "an ed25519 key", f"sender {number}", f"!room{number % ROOMS}:example.org")


def _devices(count: int) -> Devices:
    devices: Devices = {}
    for number in range(count):
        user_id, device_id = f"@user{number // DEVICES_OF_A_USER}:example.org", f"DEVICE{number}"
        keys = {"ed25519": f"ed25519 key {number}", "curve25519": f"curve25519 key {number}"}
        devices.setdefault(user_id, {})[device_id] = OlmDevice(user_id, device_id, keys)
    return devices


@contextmanager
def _timed(seconds: Timings, name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds.setdefault(name, []).append(time.perf_counter() - started)


def compare(subjects: list[Subject], runs: int, count: int, say: Callable[[str], None]) -> dict[str, Timings]:
    """All timings by subject. The subjects take turns, so that a busy moment of the machine hits all of them."""
    timings: dict[str, Timings] = {subject.name: {} for subject in subjects}
    for run in range(runs):
        for subject in subjects:
            say(f"run {run + 1} of {runs}: {subject.name}")
            for name, seconds in measure(subject, f"DEVICE{run}", count).items():
                timings[subject.name].setdefault(name, []).extend(seconds)
    return timings


def report(timings: dict[str, Timings], runs: int) -> Table:
    """Medians, and how they compare with the first column."""
    table = Table(title=f"Median of {runs} runs; in brackets, the first column's time divided by this one")
    table.add_column("measurement")
    for name in timings:
        table.add_column(name, justify="right")
    for name in {name: None for timing in timings.values() for name in timing}:
        medians = [statistics.median(timing[name]) if name in timing else None for timing in timings.values()]
        table.add_row(name, *(_cell(median, medians[0]) for median in medians))
    return table


def _cell(seconds: float | None, base: float | None) -> str:
    if seconds is None:
        return "-"
    return _shown(seconds) if base in (None, seconds) else f"{_shown(seconds)} ({base / seconds:.3g})"


def _shown(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def main() -> None:
    """Run the comparison and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="how often each store is measured (default: 3)")
    parser.add_argument("--records", type=int, default=10_000, help="sessions, and devices (default: 10000)")
    parser.add_argument("--folder", help="where the SQLite files go (default: a temporary folder)")
    arguments = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name, provided_database() as database:
        schema = database.new_schema()
        subjects: list[Subject] = [
            Nio(Path(name)),
            Ours("NioStore, SQLite", f"sqlite:///{name}/keys.db"),
            Ours("NioStore, PostgreSQL", database.url(schema)),
        ]
        timings = compare(subjects, arguments.runs, arguments.records, console.print)
        database.drop_schema(schema)
    console.print(report(timings, arguments.runs))


if __name__ == "__main__":
    main()
