"""Opening and closing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cryptostore import Backend, Changes, CryptoStore, Health, StoreClosed, SyncToken, Value
from cryptostore_contract.cases.base import CaseGroup, nothing_in_the_way
from cryptostore_contract.handles import Handles, by_kind, own, put, read
from cryptostore_contract.manifest import case
from cryptostore_contract.observed import SERVER_PROPERTY
from cryptostore_contract.samples import ALICE, BOB, one_of_each, sample, samples


class LifecycleCases(CaseGroup):
    """What open and closed handles do."""

    @case("LIFECYCLE-1", checks=("STORE-2", "CLOSE-2"))
    def test_a_closed_store_refuses_everything_but_close(self, store: CryptoStore, handles: Handles) -> None:
        put(store, sample(Value))
        store.close()
        store.close()
        refuse_as_closed(store_methods(store))
        assert handles.everything() == by_kind([sample(Value)])

    @case("LIFECYCLE-2", checks=("BACKEND-2", "STORE-2", "CLOSE-1", "CLOSE-3"))
    def test_a_closed_backend_refuses_everything_but_close(self, handles: Handles) -> None:
        backend = handles.open()
        owned = own(backend, ALICE)
        put(owned, sample(Value))
        reader = read(backend, ALICE)
        backend.close()
        backend.close()
        refuse_as_closed(backend_methods(backend))
        refuse_as_closed(store_methods(owned))
        refuse_as_closed([lambda: reader.get(Value, []), lambda: list(reader.scan(Value))])
        owned.close()
        assert handles.everything() == by_kind([sample(Value)])

    @case("LIFECYCLE-3", checks=("STORE-2", "SCAN-3"))
    def test_a_scan_ends_with_its_store(self, store: CryptoStore) -> None:
        put(store, *samples(Value, 5_000))
        begun, fresh = store.scan(Value), store.scan(Value)
        next(begun)
        store.close()
        for scan in (begun, fresh):
            with pytest.raises(StoreClosed):
                list(scan)

    @case("LIFECYCLE-4", checks=("CLOSE-1", "CLOSE-2", "CLOSE-3"))
    def test_closing_one_handle_leaves_the_others_open(self, handles: Handles) -> None:
        backend, other = handles.open(), handles.open()
        with own(backend, ALICE) as alice, own(backend, BOB) as bob:
            reader = read(other, ALICE)
            put(alice, sample(SyncToken))
            alice.close()
            with nothing_in_the_way("a store that was closed took another with it"):
                put(bob, sample(SyncToken, 2))
            backend.close()
        with nothing_in_the_way("a backend that was closed took another with it"):
            assert reader.get(SyncToken, [()]) == {(): sample(SyncToken)}

    @case("LIFECYCLE-5", checks=("CLOSE-1", "CLOSE-2", "CLOSE-3"))
    def test_stores_and_backends_close_at_the_end_of_their_block(self, handles: Handles) -> None:
        with handles.open() as backend, own(backend, ALICE) as store:
            put(store, sample(Value))
        refuse_as_closed([lambda: store.get(Value, []), backend.accounts])

    @case("LIFECYCLE-6", checks=("HEALTH-1", "SCHEMA-1"))
    def test_a_backend_says_how_it_is(self, handles: Handles, record_property: Callable[[str, object], None]) -> None:
        backend = handles.open()
        health, schema = backend.health(), backend.schema()
        record_property(SERVER_PROPERTY, health.server)
        assert isinstance(health, Health)
        assert health.server
        assert health.writable
        assert 1 <= schema.min_compatible <= schema.version
        assert handles.open().schema() == schema

    @case("LIFECYCLE-7", checks=("BACKEND-1", "OPEN-1"))
    def test_many_stores_of_one_backend_are_open_at_once(self, handles: Handles) -> None:
        backend = handles.open()
        put(own(backend, ALICE), *one_of_each())
        with nothing_in_the_way("open stores keep what others need"):
            readers = [read(backend, ALICE) for _ in range(100)]
            for reader in readers:
                assert reader.get(SyncToken, [()]) == {(): sample(SyncToken)}


def store_methods(store: CryptoStore) -> list[Callable[[], object]]:
    """A call of every method of a store but `close`."""
    return [
        lambda: store.get(Value, [sample(Value).key]),
        lambda: store.get(Value, []),
        lambda: store.select(Value, [()]),
        lambda: store.select(Value, []),
        lambda: list(store.scan(Value)),
        lambda: store.apply(Changes([sample(SyncToken)])),
        lambda: store.apply(Changes()),
        lambda: list(store.stored_rows()),
    ]


def backend_methods(backend: Backend) -> list[Callable[[], object]]:
    """A call of every method of a backend but `close`."""
    return [
        lambda: own(backend, ALICE),
        lambda: read(backend, ALICE),
        backend.accounts,
        lambda: backend.delete_account(ALICE),
        backend.health,
        backend.schema,
    ]


def refuse_as_closed(attempts: list[Callable[[], object]]) -> None:
    """Every attempt raises StoreClosed."""
    for attempt in attempts:
        with pytest.raises(StoreClosed):
            attempt()
