"""One writer: the newest owner of an account wins at once, and every older one is fenced out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cryptostore import Batch, Changes, CryptoStore, FencedOut, Mode, SyncToken, Value
from cryptostore_contract.cases.base import CaseGroup, nothing_in_the_way
from cryptostore_contract.handles import Handles, by_kind, put
from cryptostore_contract.manifest import case
from cryptostore_contract.samples import ALICE, BOB, one_of_each, sample


class OwnershipCases(CaseGroup):
    """Epochs."""

    @case("OWNERSHIP-1", checks=("OPEN-1", "OPEN-2", "APPLY-3", "COMMIT-3"))
    def test_the_newest_owner_wins_and_the_older_is_fenced(self, store: CryptoStore, handles: Handles) -> None:
        put(store, sample(SyncToken))
        newer = handles.own()
        for number in (2, 3):
            with pytest.raises(FencedOut):
                put(store, sample(SyncToken, number))
        assert handles.everything() == by_kind([sample(SyncToken)])
        put(newer, sample(SyncToken, 4))
        with pytest.raises(FencedOut):
            put(store, *one_of_each(5))
        assert handles.everything() == by_kind([sample(SyncToken, 4)])

    @case("OWNERSHIP-2", checks=("OPEN-1", "APPLY-3"))
    def test_a_store_is_fenced_by_another_of_the_same_backend(self, handles: Handles) -> None:
        backend = handles.open()
        older, newer = backend.open_store(ALICE), backend.open_store(ALICE)
        put(newer, sample(SyncToken))
        with pytest.raises(FencedOut):
            put(older, sample(SyncToken, 2))

    @case("OWNERSHIP-3", checks=("APPLY-3", "COMMIT-3", "ACCOUNTS-1"))
    def test_the_fenced_owner_learns_who_took_over_and_when(self, handles: Handles) -> None:
        older = handles.own(owner="older")
        handles.own(owner="newer: host ß")
        taken_over = handles.open().accounts()[ALICE]
        with pytest.raises(FencedOut, match="newer: host ß") as fenced:
            put(older, sample(SyncToken))
        assert fenced.value.owner == taken_over.owner == "newer: host ß"
        assert fenced.value.since == taken_over.since
        assert not fenced.value.outcome_unknown
        assert taken_over.since.tzinfo is not None
        # The clock may be the server's: near enough to be this hour.
        assert abs(taken_over.since - datetime.now(UTC)) < timedelta(hours=1)

    @case("OWNERSHIP-4", checks=("OPEN-1", "ACCOUNTS-1"))
    def test_each_owner_has_an_epoch_of_its_own(self, handles: Handles) -> None:
        backend = handles.open()
        opened = [backend.open_store(ALICE).ownership for _ in range(5)]
        epochs = [ownership.epoch for ownership in opened]
        assert epochs == sorted(set(epochs))
        assert handles.open().accounts() == {ALICE: opened[-1]}

    @case("OWNERSHIP-5", checks=("OPEN-1",))
    def test_owning_an_account_fences_nobody_elses(self, store: CryptoStore, handles: Handles) -> None:
        handles.own(BOB)
        with nothing_in_the_way("an account was fenced by another's owner"):
            put(store, sample(SyncToken))

    @case("OWNERSHIP-6", checks=("OPEN-3", "GET-6"))
    def test_a_reader_takes_nothing_over_and_sees_what_the_owner_does(
        self, store: CryptoStore, handles: Handles
    ) -> None:
        put(store, sample(SyncToken))
        backend = handles.open()
        before = backend.accounts()
        reader = backend.open_store(ALICE, Mode.READ)
        assert backend.accounts() == before
        assert reader.ownership == before[ALICE]
        for number in range(2, 6):
            put(store, sample(SyncToken, number))
            assert reader.get(SyncToken, [()]) == {(): sample(SyncToken, number)}

    @case("OWNERSHIP-7", checks=("OPEN-1", "GET-1"))
    def test_a_fenced_store_still_reads(self, store: CryptoStore, handles: Handles) -> None:
        put(store, sample(SyncToken))
        newer = handles.own()
        put(newer, sample(SyncToken, 2))
        with pytest.raises(FencedOut):
            put(store, sample(SyncToken, 3))
        assert store.get(SyncToken, [()]) == {(): sample(SyncToken, 2)}

    @case("OWNERSHIP-8", checks=("COMMIT-1", "COMMIT-3"))
    def test_a_take_over_between_two_attempts_is_noticed(self, store: CryptoStore, handles: Handles) -> None:
        batch = Batch(store.ownership.sequence + 1, Changes([sample(Value)]))
        newer = handles.own()
        # The number is the right one; only the epoch is not.
        with pytest.raises(FencedOut):
            store.commit(batch, 10)
        newer.commit(batch, 10)
        with pytest.raises(FencedOut):
            store.commit(batch, 10)
        assert handles.stored(Value) == [sample(Value)]
