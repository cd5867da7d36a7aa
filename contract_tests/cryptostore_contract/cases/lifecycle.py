"""Opening and closing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cryptostore import Backend, Changes, CryptoStore, Health, Range, StoreClosed, SyncToken, Value
from cryptostore_contract.cases.base import CaseGroup, nothing_in_the_way
from cryptostore_contract.handles import Handles, by_kind, own, put, read
from cryptostore_contract.harness import Ability, Harness
from cryptostore_contract.manifest import case
from cryptostore_contract.observed import SERVER_PROPERTY
from cryptostore_contract.raw import EVERYTHING, TIMEOUT, RawOwner, found
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

    @case("LIFECYCLE-8", checks=("DATABASE-6", "PAGE-2"), needs=(Ability.OPEN_TRANSACTIONS,))
    def test_no_call_leaves_a_transaction_open(self, raw: RawOwner, harness: Harness) -> None:
        for name, call in database_calls(raw).items():
            # An engine may need no transaction for what was there when it last tidied up.
            raw.put({b"key": name.encode()})
            call()
            assert harness.open_transactions() == 0, f"a transaction is open after {name}"


def database_calls(raw: RawOwner) -> dict[str, Callable[[], object]]:
    """A call of every method of a database but `close`, by what it is."""
    database, account_id = raw.database, raw.row.id
    two_ranges = [Range(b"a", b"b"), Range(b"k", None)]
    return {
        "get": lambda: database.get(account_id, [b"key"], TIMEOUT),
        "get of several keys": lambda: database.get(account_id, [b"a", b"key"], TIMEOUT),
        "ranges": lambda: database.ranges(account_id, [EVERYTHING], TIMEOUT),
        "ranges of several": lambda: database.ranges(account_id, two_ranges, TIMEOUT),
        "page": lambda: database.page(account_id, EVERYTHING, 1, TIMEOUT),
        "find": lambda: found(database),
        "find of nothing": lambda: database.find(BOB.user_id, BOB.device_id, TIMEOUT),
        "accounts": lambda: database.accounts(TIMEOUT),
        "health": lambda: database.health(TIMEOUT),
        "schema": lambda: database.schema(TIMEOUT),
        "commit": lambda: raw.put({b"key": b"committed"}),
        "commit of a batch that is there already": lambda: raw.commit(raw.batch({b"key": b"again"}, ahead=0)),
        "commit of a batch that does not follow": lambda: raw.commit(raw.batch({b"key": b"later"}, ahead=2)),
        "take_over": lambda: RawOwner(database, BOB),
        "delete": lambda: database.delete(found(database, BOB).id, TIMEOUT),
    }


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
