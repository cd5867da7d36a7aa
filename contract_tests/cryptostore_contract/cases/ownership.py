"""One writer: the newest owner of an account wins at once, and every older one is fenced out."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from cryptostore import AccountRow, CryptoStore, FencedOut, SyncToken
from cryptostore_contract.cases.base import CaseGroup, nothing_in_the_way
from cryptostore_contract.cases.contests import Queue, TakeOvers
from cryptostore_contract.handles import Handles, by_kind, own, put, read
from cryptostore_contract.harness import Ability, Harness
from cryptostore_contract.held import halve
from cryptostore_contract.manifest import case
from cryptostore_contract.raw import TIMEOUT, RawOwner, found, new_claim
from cryptostore_contract.samples import ALICE, BOB, one_of_each, sample

#: Names of owners: of as many characters as a host may have and more, each of one byte, or of four.
_OWNERS = ("one", "", "owner ß of host \U0001d56c", "'; --", "x" * 255, "\U0001d56c" * 200)

#: By their rules, so that no system need know their names: India, Newfoundland, Middle Europe.
_ZONES = ("IST-5:30", "NST3:30NDT,M3.2.0,M11.1.0", "CET-1CEST,M3.5.0,M10.5.0/3")

#: Two moments that a clock in the last of them says to be the same, and one that it leaves out, in microseconds.
_HALF_PAST_TWO = (1_698_539_400_000_000, 1_698_543_000_000_000, 1_711_848_600_000_000)


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
        older, newer = own(backend, ALICE), own(backend, ALICE)
        put(newer, sample(SyncToken))
        with pytest.raises(FencedOut):
            put(older, sample(SyncToken, 2))

    @case("OWNERSHIP-3", checks=("APPLY-3", "COMMIT-3", "ACCOUNTS-1", "ACCOUNTS-2"))
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

    @case("OWNERSHIP-4", checks=("OPEN-1", "ACCOUNTS-1", "ACCOUNTS-2"))
    def test_each_owner_has_an_epoch_of_its_own(self, handles: Handles) -> None:
        backend = handles.open()
        opened = [own(backend, ALICE).ownership for _ in range(5)]
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
        reader = read(backend, ALICE)
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

    @case("OWNERSHIP-8", checks=("COMMIT-2", "COMMIT-3"))
    def test_a_take_over_between_two_attempts_is_noticed(self, raw: RawOwner, handles: Handles) -> None:
        batch = raw.batch({b"key": b"older"})
        newer = handles.raw()
        # The number is the right one; only the owner is not.
        assert raw.commit(batch) == newer.row
        newer.put({b"key": b"newer"})
        assert raw.commit(batch) == newer.row
        assert (newer.everything(), found(raw.database)) == ({b"key": b"newer"}, newer.row)

    @case("OWNERSHIP-9", checks=("TAKE-1", "TAKE-2", "FIND-1", "ACCOUNTS-1", "COMMIT-1"))
    @pytest.mark.parametrize("since", [0, 1, 2**53 + 1, 2**63 - 1])
    def test_a_take_over_is_as_it_was_claimed(self, handles: Handles, since: int) -> None:
        database = handles.open().database
        written_at = 0
        for epoch, owner in enumerate(_OWNERS, 1):
            claim = new_claim(new_id=5, incarnation=2**63 - epoch, owner=owner, since=since)
            raw = RawOwner(database, ALICE, claim)
            names = (ALICE.user_id, ALICE.device_id)
            assert raw.row == AccountRow(5, *names, epoch, claim.incarnation, epoch - 1, owner, since, written_at)
            fresh = handles.open().database
            # Twice, since looking changes nothing.
            assert [found(fresh), found(fresh), *fresh.accounts(TIMEOUT)] == [raw.row] * 3
            # A time of its own, which the next take-over leaves as it is.
            written_at = since // epoch
            raw.put({b"key": b"value"}, written_at=written_at)

    @case("OWNERSHIP-10", checks=("COMMIT-1", "COMMIT-2", "COMMIT-3"))
    @pytest.mark.parametrize("field", ["epoch", "incarnation"])
    @pytest.mark.parametrize("difference", [-1, 1, 2**32])
    def test_an_owner_of_another_epoch_or_incarnation_commits_nothing(
        self, handles: Handles, field: str, difference: int
    ) -> None:
        raw = RawOwner(handles.open().database, ALICE, new_claim(incarnation=2**40))
        raw.put({b"key": b"value"})
        batch = raw.batch({b"key": b"strange", b"new": b"strange"}, [b"gone"])
        strange = batch._replace(**{field: getattr(batch, field) + difference})
        assert raw.commit(strange) == raw.row
        assert (raw.everything(), found(raw.database)) == ({b"key": b"value"}, raw.row)
        # Its own owner is not disturbed.
        assert raw.commit(batch) == batch.row_after(raw.row)

    @case("OWNERSHIP-11", checks=("COMMIT-1", "COMMIT-2", "COMMIT-3"))
    def test_an_owner_that_is_held_inside_a_commit_while_another_takes_over_changes_nothing(
        self, handles: Handles
    ) -> None:
        take_overs = TakeOvers(handles)
        halve(take_overs.events(), take_overs.comes_first)

    @case("OWNERSHIP-13", checks=("TAKE-1", "FIND-1", "ACCOUNTS-1"))
    @pytest.mark.parametrize("since", _HALF_PAST_TWO)
    def test_times_are_in_utc_whatever_the_time_zone_of_the_process(self, handles: Handles, since: int) -> None:
        for written, was_read in itertools.permutations(_ZONES, 2):
            with time_zone(written):
                row = RawOwner(handles.open().database, ALICE, new_claim(since=since)).row
            with time_zone(was_read):
                database = handles.open().database
                seen = {found(database).since, *(account.since for account in database.accounts(TIMEOUT))}
            assert (row.since, seen) == (since, {since}), f"written in {written}, and read in {was_read}"

    @case("OWNERSHIP-12", checks=("COMMIT-1", "COMMIT-2", "COMMIT-3"), needs=(Ability.ACCOUNT_LOCK,))
    def test_a_commit_that_waits_for_the_lock_behind_a_take_over_changes_nothing(
        self, handles: Handles, harness: Harness
    ) -> None:
        Queue(handles, harness).run()


@contextlib.contextmanager
def time_zone(rules: str) -> Iterator[None]:
    """A time zone for this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", rules)
        time.tzset()
        yield
    time.tzset()
