"""Backups: an older copy of the database under a running owner costs no batch of a newer one, and is told as such."""

from __future__ import annotations

import pytest

from cryptostore import AccountNotFound, DatabaseWentBack, FencedOut, SyncToken, Value
from cryptostore_contract.cases.base import CaseGroup
from cryptostore_contract.handles import Handles, by_kind, own, put
from cryptostore_contract.manifest import case
from cryptostore_contract.raw import TIMEOUT, copy_of, found, put_back, rows_of
from cryptostore_contract.samples import ALICE, BOB, one_of_each, sample


class BackupCases(CaseGroup):
    """Copies that are put back while programs run.

    No file or dump is copied here: the raw interface says all that an account is, so that it can be made what it was.
    """

    @case("BACKUPS-1", checks=("APPLY-9", "COMMIT-2", "COMMIT-3"))
    @pytest.mark.parametrize("lost", [1, 2, 5])
    def test_an_owner_under_whom_an_older_copy_was_put_back_is_told_so(self, handles: Handles, lost: int) -> None:
        store, database = handles.own(), handles.open().database
        put(store, *one_of_each())
        copy = copy_of(database)
        for number in range(lost):
            put(store, sample(SyncToken, number))
        put_back(database, copy)
        for _ in range(2):
            with pytest.raises(DatabaseWentBack) as told:
                put(store, sample(Value, 9))
            assert (told.value.acknowledged, told.value.found) == (1 + lost, 1)
        assert copy_of(database) == copy
        # A new owner goes on from the copy.
        put(handles.own(), sample(Value, 3))
        assert handles.everything() == by_kind([*one_of_each(), sample(Value, 3)])

    @case("BACKUPS-2", checks=("APPLY-3", "APPLY-9", "COMMIT-2", "COMMIT-3"))
    @pytest.mark.parametrize("batches", [0, 1, 2, 3, 4])
    def test_an_owner_from_before_a_copy_was_put_back_takes_no_batch_from_a_newer_one(
        self, handles: Handles, batches: int
    ) -> None:
        put(handles.own(), *one_of_each())
        database = handles.open().database
        copy = copy_of(database)
        older = handles.own(owner="older")
        for number in range(3):
            put(older, sample(SyncToken, number))
        put_back(database, copy)
        # In the same epoch, with fewer batches than the older has, as many, one more and two more.
        newer = handles.own(owner="newer")
        assert newer.ownership.epoch == older.ownership.epoch
        for number in range(batches):
            put(newer, sample(Value, 10 + number))
        before = copy_of(database)
        for number in range(2):
            with pytest.raises(FencedOut, match="newer"):
                put(older, sample(Value, 90 + number))
        assert copy_of(database) == before
        put(newer, sample(Value, 50))
        expected = [sample(Value, 10 + number) for number in range(batches)]
        assert handles.stored(Value) == [sample(Value), *expected, sample(Value, 50)]

    @case("BACKUPS-3", checks=("APPLY-9", "COMMIT-2", "COMMIT-3"))
    def test_an_owner_is_not_said_to_be_taken_over_by_the_one_before_it(self, handles: Handles) -> None:
        put(handles.own(owner="host"), *one_of_each())
        database = handles.open().database
        copy = copy_of(database)
        store = handles.own(owner="host")
        put_back(database, copy)
        with pytest.raises(DatabaseWentBack) as told:
            put(store, sample(SyncToken, 2))
        assert (told.value.acknowledged, told.value.found) == (1, 1)
        assert copy_of(database) == copy

    @case("BACKUPS-4", checks=("APPLY-10", "TAKE-1", "ROWS-1", "RANGES-1", "COMMIT-3"))
    @pytest.mark.parametrize("batches", [0, 1, 2])
    def test_an_account_that_a_copy_does_not_have_is_nobody_elses(self, handles: Handles, batches: int) -> None:
        store, backend = handles.own(), handles.open()
        put(store, *one_of_each())
        # What is put back is from before the account was made; then others are made in its place.
        gone = found(backend.database).id
        backend.database.delete(gone, TIMEOUT)
        others = [own(backend, account) for account in (BOB, ALICE)]
        for number in range(batches):
            for other in others:
                put(other, *one_of_each(number + 2))
        before = [copy_of(backend.database, account) for account in (BOB, ALICE)]
        assert gone not in [copy.row.id for copy in before], "an account has the id of one that is gone"
        assert rows_of(backend.database, gone) == {}, "rows of another account are under the id of one that is gone"
        assert store.select(SyncToken, [()]) == {(): []}
        assert store.get(Value, [sample(Value, number).key for number in range(9)]) == {}
        assert list(store.scan(Value)) == []
        for _ in range(2):
            with pytest.raises(AccountNotFound, match="alice"):
                put(store, *one_of_each(7))
        assert [copy_of(backend.database, account) for account in (BOB, ALICE)] == before

    @case("BACKUPS-5", checks=("APPLY-9", "APPLY-5", "COMMIT-2"))
    def test_a_copy_from_between_an_attempt_and_its_answer_is_gone_on_with(self, handles: Handles) -> None:
        raw = handles.raw()
        raw.put({b"key": b"first"})
        copy = copy_of(raw.database)
        batch = raw.batch({b"key": b"second"}, [b"gone"])
        committed = raw.commit(batch)
        # Only what was never answered is gone: the owner sends it again, and misses nothing.
        put_back(raw.database, copy)
        assert raw.commit(batch) == committed == found(raw.database)
        raw.row = found(raw.database)
        assert raw.everything() == {b"key": b"second"}
