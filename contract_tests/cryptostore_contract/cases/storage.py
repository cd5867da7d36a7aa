"""Storage that refuses: a full disk, a database that may only be read."""

from __future__ import annotations

import pytest

from cryptostore import (
    BackendUnavailable,
    Changes,
    ConfigurationError,
    CryptoStore,
    OlmSession,
    Record,
    StorageFull,
    SyncToken,
    Value,
)
from cryptostore_contract.cases.base import CaseGroup
from cryptostore_contract.handles import Handles, by_kind, put, read
from cryptostore_contract.harness import Ability, Harness
from cryptostore_contract.manifest import case
from cryptostore_contract.samples import ALICE, changed, sample
from cryptostore_contract.waiting import finishes

_MEBIBYTE = 2**20


class StorageCases(CaseGroup):
    """Refusals, after which nothing of the batch is stored."""

    @case("STORAGE-1", checks=("APPLY-4", "APPLY-6", "COMMIT-5"), needs=(Ability.FULL_DISK,))
    def test_a_full_disk_takes_nothing_of_a_batch_and_all_of_it_later(
        self, store: CryptoStore, handles: Handles, harness: Harness
    ) -> None:
        before = [sample(OlmSession), sample(SyncToken)]
        put(store, *before)
        batch = Changes(too_much(before))
        with harness.full_disk():
            for _ in range(2):
                with pytest.raises(StorageFull):
                    finishes(lambda: store.apply(batch))
            assert store.get(OlmSession, [before[0].key]) == {before[0].key: before[0]}
        assert handles.everything() == by_kind(before)
        assert handles.open().accounts()[ALICE].sequence == 1
        store.apply(batch)
        assert handles.everything() == by_kind(too_much(before))
        assert handles.open().accounts()[ALICE].sequence == 2

    @case("STORAGE-2", checks=("APPLY-4", "COMMIT-5", "COMMIT-1"), needs=(Ability.FULL_DISK,))
    def test_a_batch_refused_for_want_of_room_gives_its_number_back(
        self, store: CryptoStore, handles: Handles, harness: Harness
    ) -> None:
        with harness.full_disk(), pytest.raises(StorageFull):
            finishes(lambda: store.apply(Changes(too_much([]))))
        put(store, sample(SyncToken, 2))
        assert handles.everything() == by_kind([sample(SyncToken, 2)])
        assert handles.open().accounts()[ALICE].sequence == 1

    @case("STORAGE-3", checks=("APPLY-5", "OPEN-3", "COMMIT-5"), needs=(Ability.READ_ONLY,))
    def test_a_read_only_database_is_read_and_not_written(
        self, store: CryptoStore, handles: Handles, harness: Harness
    ) -> None:
        put(store, sample(SyncToken))
        reader = handles.read()
        with harness.read_only():
            # A new handle: what an open one may still do is the database's own affair.
            with pytest.raises((BackendUnavailable, ConfigurationError)):
                finishes(lambda: put(handles.own(deadline=2), sample(SyncToken, 2)))
            assert reader.get(SyncToken, [()]) == {(): sample(SyncToken)}
        assert handles.everything() == by_kind([sample(SyncToken)])
        put(handles.own(), sample(SyncToken, 3))
        assert reader.get(SyncToken, [()]) == {(): sample(SyncToken, 3)}

    @case("STORAGE-4", checks=("OPEN-3", "GET-1"), needs=(Ability.READ_ONLY,))
    def test_readers_open_a_read_only_database(self, store: CryptoStore, handles: Handles, harness: Harness) -> None:
        put(store, sample(SyncToken))
        with harness.read_only():
            backend = handles.open()
            assert not backend.health().writable
            assert read(backend, ALICE).get(SyncToken, [()]) == {(): sample(SyncToken)}


def too_much(before: list[Record]) -> list[Record]:
    """Changes to what is there, and more megabytes than a full disk takes."""
    big = [sample(Value, number, value=bytes([number]) * _MEBIBYTE) for number in range(8)]
    return [*[changed(record, 2) for record in before], *big]
