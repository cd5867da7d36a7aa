"""Exactly once: a batch that is sent again, or that arrives late, changes nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from cryptostore import (
    BackendUnavailable,
    Batch,
    Changes,
    CryptoStore,
    Database,
    FencedOut,
    OlmSession,
    SyncToken,
    Value,
)
from cryptostore.plugins.urls import scheme_of
from cryptostore_contract.cases.base import CaseGroup
from cryptostore_contract.cases.faults import in_the_end
from cryptostore_contract.handles import Handles, by_kind, put
from cryptostore_contract.harness import Ability, Harness
from cryptostore_contract.manifest import case
from cryptostore_contract.raw import TIMEOUT, RawOwner, found, rows_of
from cryptostore_contract.samples import ALICE, BOB, changed, one_of_each, sample
from cryptostore_contract.steps import interrupted, require_steps

#: Seconds of an attempt that cannot succeed.
_ATTEMPT = 1.0
_TRIES = 5

#: How many batches follow on an interrupt: a pool may not give its connections out in their order.
_OTHERS = 3


class NumberingCases(CaseGroup):
    """Sequence numbers."""

    @case("NUMBERING-1", checks=("COMMIT-2", "COMMIT-3", "COMMIT-4"))
    def test_the_same_number_twice_is_one_commit(self, raw: RawOwner, handles: Handles) -> None:
        first = raw.batch({b"key": b"first", b"other": b"first"})
        committed = first.row_after(raw.row)
        others = raw.batch({b"key": b"second"}, [b"other"])
        # The third attempt is another process's, for all that the database knows. The last is not put right by others.
        attempts = [raw.commit(first), raw.commit(first)]
        attempts.append(handles.open().database.commit(raw.row.id, first, TIMEOUT))
        attempts.append(raw.commit(others))
        assert attempts == [committed] * 4
        with handles.open() as backend:
            assert rows_of(backend.database, raw.row.id) == {b"key": b"first", b"other": b"first"}
            assert found(backend.database) == committed

    @case("NUMBERING-2", checks=("COMMIT-2", "COMMIT-3"))
    def test_bytes_that_arrive_late_change_nothing(self, raw: RawOwner, handles: Handles) -> None:
        old = raw.batch({b"ratchet": b"older", b"gone": b"older"})
        raw.commit(old)
        newer = raw.commit(raw.batch({b"ratchet": b"newer"}, [b"gone"], ahead=2))
        # The first attempt at the old batch had stalled in the network, and comes out of it now.
        assert raw.commit(old) == newer == old._replace(number=old.number + 1).row_after(raw.row)
        assert rows_of(handles.open().database, raw.row.id) == {b"ratchet": b"newer"}

    @case("NUMBERING-3", checks=("COMMIT-2", "COMMIT-3"))
    @pytest.mark.parametrize("ahead", [0, 2, 3, 1_000, 2**32 + 1])
    def test_a_batch_after_a_gap_is_refused(self, raw: RawOwner, handles: Handles, ahead: int) -> None:
        raw.put({b"key": b"value"})
        raw.put({b"key": b"value"})
        assert raw.commit(raw.batch({b"key": b"from afar"}, ahead=ahead)) == raw.row
        with handles.open() as backend:
            assert rows_of(backend.database, raw.row.id) == {b"key": b"value"}
            assert found(backend.database) == raw.row

    @case("NUMBERING-4", checks=("COMMIT-1", "OPEN-1"))
    def test_the_sequence_goes_on_from_owner_to_owner(self, handles: Handles) -> None:
        for opened in range(4):
            store = handles.own()
            assert store.ownership.sequence == 3 * opened
            for number in range(3):
                put(store, sample(SyncToken, number))
        assert handles.open().accounts()[ALICE].sequence == 12

    @case("NUMBERING-5", checks=("COMMIT-2", "APPLY-5"))
    def test_a_batch_whose_answer_was_lost_is_applied_once(
        self, store: CryptoStore, handles: Handles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        commits = lose_answers(store, monkeypatch, 2)
        put(store, sample(SyncToken))
        assert [batch.number for batch in commits] == [1, 1, 1]
        assert handles.open().accounts()[ALICE].sequence == 1

    @case("NUMBERING-6", checks=("APPLY-5", "APPLY-7", "COMMIT-2"))
    def test_a_pending_batch_is_settled_before_a_later_one(
        self, handles: Handles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = handles.own(deadline=1.5)
        ratchet = sample(OlmSession)
        with monkeypatch.context() as patch:
            lost = lose_answers(store, patch, 1_000)
            with pytest.raises(BackendUnavailable):
                put(store, changed(ratchet, 1))
        commits = lose_answers(store, monkeypatch, 0)
        put(store, changed(ratchet, 2))
        assert [batch.number for batch in commits] == [1, 2]
        # To the byte: a batch that is sealed again is another one under the same number.
        assert [batch == commits[0] for batch in lost] == [True] * len(lost)
        assert handles.stored(OlmSession) == [changed(ratchet, 2)]
        assert handles.open().accounts()[ALICE].sequence == 2

    @case("NUMBERING-7", checks=("APPLY-5", "COMMIT-2"))
    def test_applying_a_pending_batch_again_settles_it(self, handles: Handles, monkeypatch: pytest.MonkeyPatch) -> None:
        store = handles.own(deadline=1.5)
        changes = Changes(one_of_each())
        with monkeypatch.context() as patch:
            lose_answers(store, patch, 1_000)
            with pytest.raises(BackendUnavailable):
                store.apply(changes)
        store.apply(changes)
        assert handles.everything() == by_kind(one_of_each())
        assert handles.open().accounts()[ALICE].sequence == 1

    @case("NUMBERING-8", checks=("APPLY-3", "APPLY-5"))
    def test_fenced_out_after_a_lost_answer_says_that_the_outcome_is_unknown(
        self, handles: Handles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = handles.own(deadline=1.5)
        lose_answers(store, monkeypatch, 1_000)
        with pytest.raises(BackendUnavailable):
            put(store, sample(SyncToken))
        monkeypatch.undo()
        handles.own(owner="newer")
        with pytest.raises(FencedOut) as fenced:
            put(store, sample(SyncToken, 2))
        assert fenced.value.outcome_unknown
        assert fenced.value.owner == "newer"
        assert handles.stored(SyncToken) == [sample(SyncToken)]

    @case("NUMBERING-9", checks=("APPLY-8", "COMMIT-2"))
    def test_an_interrupt_leaves_the_batch_pending(
        self, store: CryptoStore, handles: Handles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            lose_answers(store, patch, 1, KeyboardInterrupt)
            with pytest.raises(KeyboardInterrupt):
                put(store, sample(Value, 1))
        commits = lose_answers(store, monkeypatch, 0)
        put(store, sample(Value, 2))
        assert [batch.number for batch in commits] == [1, 2]
        assert handles.stored(Value) == [sample(Value, 1), sample(Value, 2)]

    @case("NUMBERING-10", checks=("CLOSE-2", "APPLY-5"))
    def test_a_pending_batch_is_not_sent_by_closing(self, handles: Handles, monkeypatch: pytest.MonkeyPatch) -> None:
        store = handles.own(deadline=1.5)
        monkeypatch.setattr(store._sequence, "_commit", unreachable)
        with pytest.raises(BackendUnavailable):
            put(store, sample(SyncToken))
        monkeypatch.undo()
        store.close()
        assert handles.everything() == {}

    @case("NUMBERING-11", checks=("COMMIT-7", "COMMIT-2", "APPLY-8"), needs=(Ability.OTHER_PROCESS,))
    def test_an_interrupt_inside_the_backend_leaves_no_half_batch_to_the_next_one(
        self, handles: Handles, harness: Harness
    ) -> None:
        scheme = scheme_of(harness.url)
        interrupts = Interrupts(handles)
        missed = next(step for step in itertools.count(1) if not interrupts.come_behind(scheme, step))
        require_steps(missed - 1)

    @case("NUMBERING-12", checks=("COMMIT-4", "COMMIT-6"), needs=(Ability.STANDBY_AWAY, Ability.END_SESSIONS))
    def test_a_batch_that_is_there_and_not_yet_durable_is_not_said_to_be_committed(
        self, raw: RawOwner, handles: Handles, harness: Harness
    ) -> None:
        batch = raw.batch({b"key": b"value"})
        reader = handles.open().database
        with harness.standby_away():
            for _ in range(2):
                # On a busy machine, an attempt may end before the server has the batch.
                seen = (_seen_after_an_attempt(raw, batch, reader, harness) for _ in range(_TRIES))
                assert batch.number in seen, "a batch that waited for its standby was not to be seen"
        assert in_the_end(lambda: raw.commit(batch)) == batch.row_after(raw.row)


def _seen_after_an_attempt(raw: RawOwner, batch: Batch, reader: Database, harness: Harness) -> int:
    """The number of the last batch that others see, after this one could not be replicated."""
    with pytest.raises(BackendUnavailable):
        raw.database.commit(raw.row.id, batch, _ATTEMPT)
    # The server gives up waiting: from now on the batch is seen, and is on the primary alone.
    harness.end_sessions()
    return in_the_end(lambda: found(reader)).sequence


class Interrupts:
    """Two accounts of one handle: Alice's batch is interrupted, and Bob's are the next to be committed."""

    def __init__(self, handles: Handles) -> None:
        database = handles.open().database
        self._alice = RawOwner(database, ALICE)
        self._bob = RawOwner(database, BOB)
        self._others = handles.open().database
        self._rows: dict[bytes, bytes] = {}

    def come_behind(self, scheme: str, step: int) -> bool:
        """Interrupt a batch behind a step; fails if a half of it is found then. Whether it had so many steps."""
        rows = {b"key %02d of batch %d" % (number, step): b"value" for number in range(20)}
        batch = self._alice.batch(rows, self._rows)
        came = interrupted(scheme, step, lambda: self._alice.commit(batch))
        for _ in range(_OTHERS):
            self._bob.put({b"key": b"behind step %d" % step})
        found_rows = rows_of(self._others, self._alice.row.id)
        assert found_rows in (self._rows, rows), f"a batch that was interrupted behind step {step} is there by half"
        answer = self._alice.commit(batch)
        self._alice.row = found(self._others)
        assert answer == self._alice.row, f"a batch that was interrupted behind step {step}, sent again"
        assert answer.sequence == batch.number, f"a batch that was interrupted behind step {step}, sent again"
        assert rows_of(self._others, self._alice.row.id) == rows, f"the batch that was interrupted behind step {step}"
        self._rows = rows
        return came


def lose_answers(
    store: CryptoStore,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    lost: Callable[[str], BaseException] = BackendUnavailable,
) -> list[Batch]:
    """Let the next commits of a store succeed, but lose their answers; returns the list of all attempts to come.

    The store's own BatchSequence is told to call a function of ours: an answer that is lost between the database's
    commit and the caller can be had from no database at will, and the sequence is the core's own code, the same for
    every backend.
    """
    attempts: list[Batch] = []
    commit = store._sequence._commit

    def commit_and_lose(batch: Batch, timeout: float) -> None:
        commit(batch, timeout)
        attempts.append(batch)
        if len(attempts) <= count:
            raise lost("the answer was lost")

    monkeypatch.setattr(store._sequence, "_commit", commit_and_lose)
    return attempts


def unreachable(_batch: Batch, _timeout: float) -> None:
    """An attempt that does not get as far as the database."""
    raise BackendUnavailable("the network is down")
