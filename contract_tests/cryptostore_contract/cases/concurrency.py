"""Threads: on one handle, on one account through several, and readers beside a writer."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from cryptostore import (
    Account,
    Changes,
    CryptoStore,
    Database,
    FencedOut,
    OlmSession,
    Range,
    Row,
    SyncToken,
    Value,
)
from cryptostore_contract.cases.base import CaseGroup
from cryptostore_contract.cases.contests import Looks
from cryptostore_contract.children import child
from cryptostore_contract.handles import Handles, own, put
from cryptostore_contract.harness import Ability, Harness
from cryptostore_contract.held import halve
from cryptostore_contract.manifest import case
from cryptostore_contract.raw import EVERYTHING, TIMEOUT, RawOwner, found, rows_of
from cryptostore_contract.samples import ALICE, sample
from cryptostore_contract.waiting import result_of, start, together

_THREADS = 8
_BATCHES = 15

#: What is stored, and asked for among many keys that are not, in as many ranges, or in one page.
_STORED = tuple(b"key %05d" % number for number in range(0, 100_000, 50))
_KEYS = tuple(b"key %05d" % number for number in range(100_000))
_RANGES = [Range(key[:-1], key + b"\0") for key in _STORED]
_ASKED: dict[str, Callable[[Database, int], Sequence[Row]]] = {
    "keys": lambda database, account_id: sorted(database.get(account_id, _KEYS, TIMEOUT)),
    "ranges": lambda database, account_id: database.ranges(account_id, _RANGES, TIMEOUT),
    "one range": lambda database, account_id: database.ranges(account_id, [EVERYTHING], TIMEOUT),
    "one page": lambda database, account_id: database.page(account_id, EVERYTHING, len(_STORED), TIMEOUT),
}

#: The same with keys of a thousand bytes, which together are longer than what some databases take at once.
_LONG_KEYS = tuple((b"key %05d " % number).ljust(1_000, b"k") for number in range(5_000))
_LONG_STORED = _LONG_KEYS[::10]
_LONG_RANGES = [Range(key[:-1], key + b"\0") for key in _LONG_STORED]
_LONG_ASKED: dict[str, Callable[[Database, int], Sequence[Row]]] = {
    "keys": lambda database, account_id: database.get(account_id, _LONG_KEYS, TIMEOUT),
    "ranges": lambda database, account_id: database.ranges(account_id, _LONG_RANGES, TIMEOUT),
    "one range": lambda database, account_id: database.ranges(account_id, [EVERYTHING], TIMEOUT),
    "one page": lambda database, account_id: database.page(account_id, EVERYTHING, len(_LONG_STORED), TIMEOUT),
}

#: The keys of a batch of 5 MB, and how long each of its values is.
_LARGE_BATCH = tuple(b"key %03d" % number for number in range(100))
_LARGE_VALUE = 50_000

#: So many answers during which a batch was committed are enough, and so many in all, for databases that let none in.
_OVERLAPS = 5
_MOST_LOOKS = 40


class ConcurrencyCases(CaseGroup):
    """Several threads of one process."""

    @case("CONCURRENCY-1", checks=("STORE-1", "APPLY-7", "COMMIT-1"))
    def test_threads_share_a_store(self, store: CryptoStore, handles: Handles) -> None:
        def write_and_read(thread: int) -> None:
            for number in range(_BATCHES):
                mine = value_of(f"thread {thread}", number)
                put(store, mine, sample(Value, namespace="all", name=f"{thread}-{number}"))
                assert store.get(Value, [mine.key]) == {mine.key: mine}
                assert store.select(Value, [mine.key[:1]])[mine.key[:1]] == [mine]

        together([partial(write_and_read, thread) for thread in range(_THREADS)])
        stored = handles.stored(Value)
        assert len(stored) == _THREADS * _BATCHES + _THREADS
        assert handles.open().accounts()[ALICE].sequence == _THREADS * _BATCHES

    @case("CONCURRENCY-2", checks=("BACKEND-1", "OPEN-1"))
    def test_threads_share_a_backend_each_with_its_account(self, handles: Handles) -> None:
        backend = handles.open()
        accounts = [Account(f"@user{number}:example.org", "D") for number in range(_THREADS)]

        # All are open before any of them writes.
        stores: list[CryptoStore] = together([partial(own, backend, account) for account in accounts])

        def write(store: CryptoStore, thread: int) -> None:
            with store:
                for number in range(_BATCHES):
                    put(store, value_of("same key", 100 * thread + number), sample(SyncToken, number))

        together([partial(write, store, thread) for thread, store in enumerate(stores)])
        for thread, account in enumerate(accounts):
            assert handles.stored(Value, account) == [value_of("same key", 100 * thread + _BATCHES - 1)]
        assert [owned.sequence for owned in backend.accounts().values()] == [_BATCHES] * _THREADS

    @case("CONCURRENCY-3", checks=("COMMIT-1", "COMMIT-3", "OPEN-2"))
    def test_owners_that_take_over_from_each_other_lose_no_batch(self, handles: Handles) -> None:
        backends = [handles.open() for _ in range(4)]

        def take_over_again_and_again(thread: int) -> list[str]:
            applied: list[str] = []
            for opened in range(6):
                store = own(backends[thread], ALICE)
                for number in range(3):
                    name = f"{thread}-{opened}-{number}"
                    try:
                        put(store, sample(Value, name=name), sample(OlmSession, len(applied), session_id=name))
                    except FencedOut:
                        break
                    applied.append(name)
            return applied

        tasks = [partial(take_over_again_and_again, thread) for thread in range(len(backends))]
        applied = [name for names in together(tasks) for name in names]
        # A lost update of the epoch or the sequence shows here: more or fewer batches than were acknowledged.
        assert handles.open().accounts()[ALICE].sequence == len(applied)
        assert {value.name for value in handles.stored(Value)} == set(applied)
        assert {session.session_id for session in handles.stored(OlmSession)} == set(applied)

    @case("CONCURRENCY-4", checks=("OPEN-1", "ACCOUNTS-1", "ACCOUNTS-2"))
    def test_one_owner_is_left_when_many_open_at_once(self, handles: Handles) -> None:
        backends = [handles.open() for _ in range(_THREADS)]
        stores: list[CryptoStore] = together([partial(own, backend) for backend in backends])
        epochs = {store.ownership.epoch for store in stores}
        assert len(epochs) == _THREADS
        written = [store for store in stores if is_owner(store)]
        assert [store.ownership.epoch for store in written] == [max(epochs)]

    @case("CONCURRENCY-5", checks=("GET-6", "SELECT-6", "SCAN-4", "COMMIT-7", "STORE-1"))
    def test_readers_beside_a_writer_see_whole_batches(self, store: CryptoStore, handles: Handles) -> None:
        names = [f"{number:03}" for number in range(200)]
        put(store, *batch_of(names, 0))
        done = threading.Event()

        def read(reader: CryptoStore) -> int:
            last = reads = 0
            while not done.is_set() or not reads:
                for look in looks(reader, names):
                    seen = look()
                    assert len(seen) == len(names)
                    assert len(set(seen)) == 1, "a reader saw a batch by half"
                    assert int(seen[0]) >= last, "a reader saw an older batch after a newer one"
                    last = int(seen[0])
                reads += 1
            return reads

        readers = [handles.read(), handles.read(), store]
        reading = [start(partial(read, reader)) for reader in readers]
        try:
            for number in range(1, 60):
                put(store, *batch_of(names, number))
        finally:
            done.set()
        assert all(result_of(future) for future in reading)

    @case("CONCURRENCY-6", checks=("COMMIT-7", "SELECT-6", "GET-6"))
    def test_readers_beside_deletions_see_whole_batches(self, store: CryptoStore, handles: Handles) -> None:
        records = batch_of([f"{number:03}" for number in range(200)], 1)
        put(store, *records)
        done = threading.Event()

        def read(reader: CryptoStore) -> int:
            reads = 0
            while not done.is_set() or not reads:
                assert len(reader.select(Value, [()])[()]) in (0, len(records))
                assert len(reader.get(Value, [record.key for record in records])) in (0, len(records))
                reads += 1
            return reads

        reading = [start(partial(read, reader)) for reader in (handles.read(), handles.read())]
        try:
            for _ in range(15):
                store.apply(Changes(deletes=[(Value, record.key) for record in records]))
                put(store, *records)
        finally:
            done.set()
        assert all(result_of(future) for future in reading)

    @case("CONCURRENCY-7", checks=("ROWS-2", "RANGES-2", "PAGE-2", "COMMIT-7", "DATABASE-1"))
    @pytest.mark.parametrize("ask", list(_ASKED.values()), ids=list(_ASKED))
    def test_a_hundred_thousand_rows_are_asked_for_in_one_snapshot(
        self, raw: RawOwner, handles: Handles, ask: Callable[[Database, int], Sequence[Row]]
    ) -> None:
        raw.put(dict.fromkeys(_STORED, b"0"))
        reader = handles.open().database
        done = threading.Event()

        def write() -> int:
            while not done.is_set():
                raw.put(dict.fromkeys(_STORED, b"%d" % raw.row.sequence))
            return raw.row.sequence

        writing = start(write)
        try:
            overlapped = 0
            for _ in range(_MOST_LOOKS):
                before = raw.row.sequence
                rows = ask(reader, raw.row.id)
                overlapped += raw.row.sequence > before
                assert [row[0] for row in rows] == list(_STORED)
                assert len({row[1] for row in rows}) == 1, "two batches are mixed in one answer"
                if overlapped == _OVERLAPS:
                    break
        finally:
            done.set()
        assert result_of(writing) > 1

    @case("CONCURRENCY-8", checks=("DELETE-1", "DELETE-2", "COMMIT-3", "DATABASE-1"))
    def test_an_account_that_is_deleted_under_its_writer_leaves_no_rows(self, handles: Handles) -> None:
        database = handles.open().database

        def write(owner: RawOwner, deleted: threading.Event) -> int:
            late = 0
            for number in itertools.count(1):
                rows = {b"key %d of %d" % (key, number): b"value" for key in range(200)}
                late += deleted.is_set()
                if owner.commit(owner.batch(rows, ahead=number)) is None or late > 1:
                    break
            return late

        for _ in range(10):
            owner, deleted = handles.raw(), threading.Event()
            owner.put({b"key": b"value"})
            writing = start(partial(write, owner, deleted))
            while found(database).sequence < 3:
                pass
            database.delete(owner.row.id, TIMEOUT)
            deleted.set()
            assert result_of(writing) <= 1, "a batch was committed in an account that is deleted"
            assert rows_of(database, owner.row.id) == {}, "a batch left rows in an account that is deleted"

    @case("CONCURRENCY-9", checks=("ROWS-2", "RANGES-2", "PAGE-2", "COMMIT-7"))
    @pytest.mark.parametrize("ask", list(_LONG_ASKED.values()), ids=list(_LONG_ASKED))
    def test_a_reader_that_is_held_inside_a_look_sees_one_batch(
        self, handles: Handles, ask: Callable[[Database, int], Sequence[Row]]
    ) -> None:
        looks = Looks(handles, _LONG_STORED, 20)
        halve(looks.events_of_a_look(ask), partial(looks.batch_comes_first, ask))

    @case("CONCURRENCY-10", checks=("COMMIT-7",))
    def test_a_large_batch_whose_writer_is_held_inside_it_is_seen_whole_or_not_at_all(self, handles: Handles) -> None:
        looks = Looks(handles, _LARGE_BATCH, _LARGE_VALUE)
        halve(looks.events_of_a_batch(), looks.look_comes_first)

    @case("CONCURRENCY-11", checks=("STORE-1", "BACKEND-1", "COMMIT-2"), needs=(Ability.OTHER_PROCESS,))
    def test_a_process_that_is_forked_off_is_answered_rightly_or_refused(
        self, handles: Handles, harness: Harness
    ) -> None:
        with child(harness.url, ALICE, "use-after-fork") as forking:
            said, error = forking.end(), forking.error()
        wrong = [line for line in said if line.startswith("wrong ")]
        assert not wrong, f"{len(wrong)} answers were not to the question, such as: {wrong[0]}"
        assert "applied parent, later" in said, f"after a fork, the parent's store did not go on: {error}"
        acknowledged = {line.removeprefix("applied ") for line in said if line.startswith("applied ")}
        lost = acknowledged - {value.name for value in handles.stored(Value)}
        assert not lost, "one of two batches was acknowledged and lost: parent and child gave them the same number"


def value_of(namespace: str, number: int) -> Value:
    """The one value of a namespace, as batch `number` has it."""
    return Value(namespace, "name", str(number).encode())


def batch_of(names: list[str], number: int) -> list[Value]:
    """Values in several namespaces, all saying the number of their batch."""
    return [Value(f"n{position % 3}", name, str(number).encode()) for position, name in enumerate(names)]


def looks(reader: CryptoStore, names: list[str]) -> list[Callable[[], list[bytes]]]:
    """Every way to read the values of `batch_of` in one snapshot."""
    keys = [value.key for value in batch_of(names, 0)]
    prefixes = [("n0",), ("n1",), ("n2",)]
    return [
        lambda: [value.value for value in reader.get(Value, keys).values()],
        lambda: [value.value for value in reader.select(Value, [()])[()]],
        lambda: [value.value for found in reader.select(Value, prefixes).values() for value in found],
        # So few that no backend has reason to give them more than one page.
        lambda: [value.value for value in reader.scan(Value)],
    ]


def is_owner(store: CryptoStore) -> bool:
    """Whether the store can still write."""
    try:
        put(store, sample(SyncToken))
    except FencedOut:
        return False
    return True
