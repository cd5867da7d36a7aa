"""A server that goes away, and networks that fail: an error inside the deadline, and never a batch twice or by half."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

import pytest

from cryptostore import (
    Backend,
    BackendUnavailable,
    Batch,
    Capability,
    Changes,
    CryptoStore,
    Database,
    OlmSession,
    Row,
    SyncToken,
    Value,
)
from cryptostore_contract.cases.base import CaseGroup, assert_away
from cryptostore_contract.cases.batches import open_handles
from cryptostore_contract.handles import Handles, by_kind, own, put, read
from cryptostore_contract.harness import Ability, Harness, lacks
from cryptostore_contract.manifest import case
from cryptostore_contract.proxy import Proxy
from cryptostore_contract.raw import EVERYTHING, RawOwner, found, new_claim
from cryptostore_contract.samples import ALICE, BOB, changed, in_key_order, one_of_each, sample, samples
from cryptostore_contract.waiting import finishes, result_of, start

#: A deadline in seconds that a case can afford to wait for.
SHORT = 1.5

#: Seconds that every chunk of bytes takes, in each direction, on a network that is slow and not too slow.
_LATENCY = 0.05

#: A deadline in seconds that no outage in these cases lasts for, on a slow machine either.
LONG = 50.0

#: So many batches that each would be seen to leave something; the first few may fill a pool.
_MANY_FAILURES = 112
_FEW_FAILURES = 12

T = TypeVar("T")

#: What is wrong with a harness that has no connection to cut.
_NONE_CUT = "no connection was cut: does every one by `url` lead through what cuts them?"


class FaultCases(CaseGroup):
    """Cut, stopped, killed, frozen, silent."""

    @case("FAULTS-1", checks=("APPLY-5", "STORE-3"), needs=(Ability.CUT_CONNECTIONS,))
    def test_the_store_goes_on_after_its_connections_were_cut(
        self, store: CryptoStore, handles: Handles, harness: Harness
    ) -> None:
        reader = handles.read()
        for number in range(1, 4):
            put(store, sample(SyncToken, number))
            assert reader.get(SyncToken, [()]) == {(): sample(SyncToken, number)}
            assert harness.cut_connections(), _NONE_CUT
        put(store, sample(SyncToken, 9))
        assert reader.get(SyncToken, [()]) == {(): sample(SyncToken, 9)}
        assert handles.open().accounts()[ALICE].sequence == 4

    @case("FAULTS-2", checks=("APPLY-5", "APPLY-6", "COMMIT-2", "COMMIT-6"), needs=(Ability.CUT_CONNECTIONS,))
    def test_connections_cut_in_the_middle_of_batches_cost_no_batch(self, handles: Handles, harness: Harness) -> None:
        moments = random.Random(7)
        cut = 0
        with batches_meanwhile(handles.own(deadline=LONG)) as writing:
            for _ in range(25):
                time.sleep(moments.uniform(0, 0.1))
                cut += bool(harness.cut_connections())
        # A connection that was made after the others among them.
        assert cut > 1, _NONE_CUT
        assert_written(result_of(writing), handles)

    @case(
        "FAULTS-3",
        checks=("APPLY-5", "COMMIT-6"),
        needs=(Ability.STOP_SERVER,),
        unless_denied=Capability.SURVIVES_SERVER_RESTART,
    )
    def test_a_server_that_comes_back_inside_the_deadline_costs_nothing_but_time(
        self, handles: Handles, harness: Harness
    ) -> None:
        store = handles.own(deadline=LONG)
        put(store, sample(OlmSession))
        harness.stop_server()
        writing = start(partial(put, store, changed(sample(OlmSession), 2)))
        with pytest.raises(TimeoutError):
            writing.result(1)
        harness.start_server()
        result_of(writing)
        assert handles.stored(OlmSession) == [changed(sample(OlmSession), 2)]
        assert handles.open().accounts()[ALICE].sequence == 2

    @case(
        "FAULTS-4",
        checks=("DATABASE-2", "APPLY-5", "STORE-3", "BACKEND-3", "HEALTH-1", "OPEN-5"),
        needs=(Ability.STOP_SERVER,),
        unless_denied=Capability.SURVIVES_SERVER_RESTART,
    )
    def test_a_server_away_beyond_the_deadline_is_unavailable_and_the_batch_applies_later(
        self, handles: Handles, harness: Harness
    ) -> None:
        with outage(handles) as (backend, store):
            harness.stop_server()
            unavailable(handles, backend, store)
            harness.start_server()

    @case("FAULTS-5", checks=("GET-3", "SELECT-3", "APPLY-1"), needs=(Ability.STOP_SERVER,))
    def test_what_asks_for_nothing_needs_no_server(self, handles: Handles, harness: Harness) -> None:
        store = handles.own(deadline=SHORT)
        harness.stop_server()
        assert_away(harness)
        assert finishes(lambda: store.get(Value, [])) == {}
        assert finishes(lambda: store.select(Value, [])) == {}
        finishes(lambda: store.apply(Changes()))
        finishes(store.close)
        harness.start_server()

    @case("FAULTS-6", checks=("COMMIT-4", "APPLY-5"), needs=(Ability.KILL_SERVER,))
    def test_a_killed_server_keeps_every_acknowledged_batch(
        self, store: CryptoStore, handles: Handles, harness: Harness
    ) -> None:
        put(store, *samples(OlmSession, 500), *one_of_each(0))
        harness.kill_server()
        assert_away(harness)
        harness.start_server()
        if lacks(harness, Capability.SURVIVES_SERVER_RESTART):
            assert ALICE not in handles.open().accounts(), "declared not to survive its server, and does"
            return
        put(store, sample(SyncToken, 7))
        assert handles.stored(OlmSession) == [sample(OlmSession, 0), *samples(OlmSession, 500)]
        assert handles.stored(SyncToken) == [sample(SyncToken, 7)]
        assert handles.open().accounts()[ALICE].sequence == 2

    @case(
        "FAULTS-7",
        checks=("APPLY-5", "APPLY-6", "COMMIT-2", "COMMIT-4"),
        needs=(Ability.KILL_SERVER,),
        unless_denied=Capability.SURVIVES_SERVER_RESTART,
    )
    def test_a_server_killed_in_the_middle_of_batches_costs_no_batch(self, handles: Handles, harness: Harness) -> None:
        with batches_meanwhile(handles.own(deadline=LONG)) as writing:
            time.sleep(random.Random(8).uniform(0.01, 0.1))
            harness.kill_server()
            assert_away(harness)
            harness.start_server()
        assert_written(result_of(writing), handles)

    @case("FAULTS-8", checks=("DATABASE-2", "STORE-3", "BACKEND-3", "APPLY-5"), needs=(Ability.FROZEN_SERVER,))
    def test_a_frozen_server_is_unavailable_and_the_batch_applies_later(
        self, handles: Handles, harness: Harness
    ) -> None:
        with outage(handles) as (backend, store), harness.frozen_server():
            unavailable(handles, backend, store)

    @case(
        "FAULTS-9",
        checks=("DATABASE-2", "STORE-3", "BACKEND-3", "APPLY-5"),
        needs=(Ability.SILENT_NETWORK,),
    )
    def test_a_silent_network_is_unavailable_and_the_batch_applies_later(
        self, handles: Handles, harness: Harness
    ) -> None:
        with outage(handles) as (backend, store), harness.silent_network():
            unavailable(handles, backend, store)

    @case("FAULTS-10", checks=("STORE-3", "COMMIT-6", "APPLY-5"), needs=(Ability.SILENT_NETWORK,))
    def test_a_network_that_falls_silent_in_the_middle_of_batches_costs_no_batch(
        self, handles: Handles, harness: Harness
    ) -> None:
        with batches_meanwhile(handles.own(deadline=SHORT)) as writing:
            time.sleep(random.Random(9).uniform(0.05, 0.2))
            with harness.silent_network():
                assert not writing.done(), "it ended before the network fell silent"
                with pytest.raises(BackendUnavailable):
                    result_of(writing)
        put(handles.own(), sample(SyncToken, 7))
        last = handles.open().accounts()[ALICE].sequence - 1
        expected = by_kind(batch_number(last)) | {SyncToken: [sample(SyncToken, 7)]}
        assert handles.everything() == expected

    @case("FAULTS-11", checks=("OPEN-5", "BACKEND-3"), needs=(Ability.CONNECTION_LIMIT,))
    def test_a_server_without_free_connections_is_unavailable_until_it_has_some(
        self, handles: Handles, harness: Harness
    ) -> None:
        put(handles.own(BOB), sample(SyncToken))
        with harness.no_free_connections(), pytest.raises(BackendUnavailable):
            finishes(lambda: put(handles.own(deadline=SHORT), sample(SyncToken)))
        put(handles.own(), sample(SyncToken))
        assert handles.everything() == by_kind([sample(SyncToken)])

    @case("FAULTS-12", checks=("DATABASE-2", "STORE-3", "BACKEND-3", "APPLY-5", "OPEN-5"), needs=(Ability.PROXY,))
    def test_refused_connections_are_unavailable_and_the_batch_applies_later(
        self, handles: Handles, harness: Harness
    ) -> None:
        with outage(handles) as (backend, store), harness.proxy.refusing():
            harness.proxy.cut()
            unavailable(handles, backend, store)

    @case("FAULTS-13", checks=("APPLY-5", "COMMIT-2", "COMMIT-6", "STORE-3"), needs=(Ability.PROXY,))
    def test_a_slow_network_costs_time_and_beyond_the_deadline_no_batch(
        self, handles: Handles, harness: Harness
    ) -> None:
        store = handles.own(deadline=SHORT)
        for number in (1, 2, 3):
            with slowed(harness.proxy, _LATENCY) as began:
                put(store, *batch_number(number))
            assert time.monotonic() - began >= _LATENCY, "no byte was slowed: does `url` lead through the proxy?"
        with slowed(harness.proxy, SHORT + _LATENCY) as began, pytest.raises(BackendUnavailable):
            finishes(lambda: put(store, *batch_number(4)))
        for number in (4, 5):
            apply_in_the_end(store, Changes(batch_number(number)))
        # By then everything that was slowed has arrived.
        time.sleep(max(0.0, began + 2 * (SHORT + _LATENCY) - time.monotonic()))
        assert_written(5, handles)

    @case("FAULTS-14", checks=("COMMIT-6", "STORE-3"), needs=(Ability.CUT_CONNECTIONS,))
    def test_a_hundred_batches_that_fail_with_their_connections_leave_nothing_open(
        self, raw: RawOwner, harness: Harness
    ) -> None:
        failed = 0
        for number in range(_MANY_FAILURES):
            if number == _FEW_FAILURES:
                before = open_handles()
            assert harness.cut_connections(), _NONE_CUT
            try:
                raw.commit(raw.batch({b"key": b"%d" % number}))
            except BackendUnavailable:
                failed += 1
            raw.row = in_the_end(lambda: found(raw.database))
        left = open_handles() - before
        assert left < _FEW_FAILURES, f"{left} files, connections or threads more, and {failed} batches had failed"


def batch_number(number: int) -> list[OlmSession | Value]:
    """Enough records for a batch to have a middle, all of them replaced by the next."""
    values = [Value("n", f"{position:04}", str(number).encode() * 50) for position in range(300)]
    return [changed(sample(OlmSession), number), *values]


@contextlib.contextmanager
def batches_meanwhile(store: CryptoStore) -> Iterator[Future[int]]:
    """Numbered batches, applied one after the other as long as the context is open; the future has the last number."""
    over = threading.Event()

    def write() -> int:
        for number in itertools.count(2):
            put(store, *batch_number(number))
            if over.is_set():
                break
        return number

    put(store, *batch_number(1))
    try:
        yield start(write)
    finally:
        over.set()


@contextlib.contextmanager
def slowed(proxy: Proxy, seconds: float) -> Iterator[float]:
    """Hold every chunk of bytes up for so long; gives the time at which that began."""
    proxy.delay = seconds
    try:
        yield time.monotonic()
    finally:
        proxy.delay = 0.0


def assert_written(last: int, handles: Handles) -> None:
    """Fails unless each numbered batch up to the last was made, and once."""
    assert handles.open().accounts()[ALICE].sequence == last
    assert handles.everything() == by_kind(batch_number(last))


def unavailable(handles: Handles, backend: Backend, store: CryptoStore) -> None:
    """Every call that needs the server raises BackendUnavailable, and none of them hangs."""
    with pytest.raises(BackendUnavailable):
        finishes(lambda: store.apply(Changes(one_of_each(2))))
    calls: list[Callable[[], object]] = [
        lambda: store.get(SyncToken, [()]),
        lambda: store.select(Value, [()]),
        lambda: list(store.scan(Value)),
        backend.accounts,
        backend.health,
        lambda: own(backend, BOB),
        lambda: read(backend, ALICE),
        lambda: backend.delete_account(BOB),
        lambda: handles.open(deadline=SHORT).accounts(),
        *raw_calls(backend.database),
    ]
    # At once, since each waits for its whole deadline.
    for waiting in [start(call) for call in calls]:
        with pytest.raises(BackendUnavailable):
            result_of(waiting)


def raw_calls(database: Database) -> list[Callable[[], object]]:
    """A short attempt at each call of the raw interface, none of which changes an account that is there."""
    account_id, stale = 1, Batch(1, 1, 1, [Row(b"key", b"value")], [])
    return [
        lambda: database.take_over(BOB.user_id, BOB.device_id, new_claim(), SHORT),
        lambda: database.find(ALICE.user_id, ALICE.device_id, SHORT),
        lambda: database.accounts(SHORT),
        lambda: database.delete(account_id, SHORT),
        lambda: database.get(account_id, [b"key"], SHORT),
        lambda: database.ranges(account_id, [EVERYTHING], SHORT),
        lambda: database.page(account_id, EVERYTHING, 10, SHORT),
        lambda: database.commit(account_id, stale, SHORT),
        lambda: database.health(SHORT),
    ]


@contextlib.contextmanager
def outage(handles: Handles) -> Iterator[tuple[Backend, CryptoStore]]:
    """A backend and a store to take the database away from; afterwards the batch that `unavailable` tried applies."""
    backend = handles.open(deadline=SHORT)
    store = own(backend, ALICE)
    apply_in_the_end(store, Changes(one_of_each(1)))
    yield backend, store
    apply_in_the_end(store, Changes(one_of_each(2)))
    kept = [record for record in one_of_each(1) if record.key]
    assert handles.everything() == by_kind(in_key_order([*kept, *one_of_each(2)]))
    assert handles.open().accounts()[ALICE].sequence == 2


def apply_in_the_end(store: CryptoStore, changes: Changes) -> None:
    """Apply a batch again and again, as a caller does: a connection may take longer to come back than SHORT."""
    in_the_end(partial(store.apply, changes))


def in_the_end(call: Callable[[], T]) -> T:
    """Call again and again, as long as the database is unavailable."""
    for _ in range(20):
        with contextlib.suppress(BackendUnavailable):
            return finishes(call)
    raise AssertionError("the database is back, and is still not to be had")
