"""Exactly once: numbering, freezing and resending, with a stand-in for the backend's one attempt."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest

from clock import AttemptsClock, clock
from cryptostore import (
    BackendUnavailable,
    Batch,
    Changes,
    FencedOut,
    Row,
    StorageFull,
    SyncToken,
    TrackedUser,
)
from cryptostore.store.sequence import BatchSequence, SealedRows

__all__ = ["clock"]

FIRST, SECOND, THIRD = (Changes([SyncToken(token)]) for token in ("s1", "s2", "s3"))
AWAY = BackendUnavailable("away")
NOT_SENT = BackendUnavailable("no connection", outcome_unknown=False)


class Sent(NamedTuple):
    """A batch before it was sealed, as the tests tell one from another."""

    number: int
    changes: Changes | SealedRows


class Seals:
    """Makes batches of rows that stand for the changes, and remembers what stands for what."""

    def __init__(self) -> None:
        self.made: list[Changes | SealedRows] = []

    def seal(self, number: int, changes: Changes | SealedRows) -> Batch:
        self.made.append(changes)
        return Batch(1, 2, number, [Row(b"key", bytes([len(self.made) - 1]))], [])

    def unsealed(self, batch: Batch) -> Sent:
        return Sent(batch.number, self.made[batch.puts[0].value[0]])


class Attempts:
    """One attempt after the other, each with the outcome that the test prepared, then success."""

    def __init__(self, *outcomes: BaseException | None) -> None:
        self.outcomes = list(outcomes)
        self.batches: list[Sent] = []
        self.timeouts: list[float] = []
        self.seals = Seals()

    def sequence(self, last_committed: int, deadline: float) -> BatchSequence[Changes | SealedRows]:
        return BatchSequence(last_committed, deadline, self.seals.seal, self)

    def __call__(self, batch: Batch, timeout: float) -> None:
        self.batches.append(self.seals.unsealed(batch))
        self.timeouts.append(timeout)
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if outcome is not None:
            raise outcome


def changes_of(batch: Sent) -> Changes:
    assert isinstance(batch.changes, Changes)
    return batch.changes


def numbered(*batches: tuple[int, Changes]) -> list[Sent]:
    return [Sent(number, changes) for number, changes in batches]


def test_batches_are_numbered_from_the_last_committed_one() -> None:
    attempts = Attempts()
    sequence = attempts.sequence(41, 10)
    sequence.apply(FIRST)
    sequence.apply(SECOND)
    assert attempts.batches == numbered((42, FIRST), (43, SECOND))
    assert sequence.last_committed == 43


def test_an_empty_batch_costs_nothing() -> None:
    attempts = Attempts()
    sequence = attempts.sequence(0, 10)
    sequence.apply(Changes())
    assert attempts.batches == []
    assert sequence.last_committed == 0


def test_equal_batches_one_after_the_other_are_two() -> None:
    attempts = Attempts()
    sequence = attempts.sequence(0, 10)
    sequence.apply(FIRST)
    sequence.apply(FIRST)
    assert attempts.batches == numbered((1, FIRST), (2, FIRST))


def test_an_attempt_without_outcome_is_repeated_unchanged(clock: AttemptsClock) -> None:
    attempts = Attempts(AWAY, AWAY)
    sequence = attempts.sequence(0, 10)
    sequence.apply(FIRST)
    assert attempts.batches == numbered((1, FIRST), (1, FIRST), (1, FIRST))
    assert sequence.last_committed == 1


def test_pauses_grow_to_a_limit_and_end_at_the_deadline(clock: AttemptsClock) -> None:
    attempts = Attempts(*[AWAY] * 100)
    with pytest.raises(BackendUnavailable) as caught:
        attempts.sequence(0, 10).apply(FIRST)
    assert caught.value.__cause__ is AWAY
    assert caught.value.outcome_unknown
    assert clock.now < 1010
    assert 10 < len(attempts.batches) < 40
    assert clock.pauses[0] <= 0.05
    assert 0.5 <= max(clock.pauses) <= 1


def test_each_attempt_leaves_time_for_another(clock: AttemptsClock) -> None:
    attempts = Attempts(AWAY, AWAY, AWAY)
    attempts.sequence(0, 12).apply(FIRST)
    assert attempts.timeouts[0] == 6
    spent = [sum(clock.pauses[:count]) for count in range(4)]
    assert attempts.timeouts == [pytest.approx(max(4, (12 - seconds) / 2)) for seconds in spent]


def unavailable(attempts: Attempts) -> BatchSequence[Changes | SealedRows]:
    """A sequence whose batch number 1 is pending."""
    attempts.outcomes = [AWAY] * 100
    sequence = attempts.sequence(0, 5)
    with pytest.raises(BackendUnavailable):
        sequence.apply(FIRST)
    attempts.outcomes, attempts.batches, attempts.timeouts = [], [], []
    return sequence


def test_a_batch_that_waits_says_which_it_is_and_how_large(clock: AttemptsClock) -> None:
    attempts = Attempts(*[AWAY] * 1000)
    sequence = attempts.sequence(6, 1)
    for changes in (FIRST, SECOND):
        with pytest.raises(
            BackendUnavailable, match=r"away; batch 7 \(1 record, 4 bytes\) is tried again, unchanged"
        ) as info:
            sequence.apply(changes)
        assert info.value.__cause__ is AWAY


def test_a_pending_batch_goes_before_the_next(clock: AttemptsClock) -> None:
    attempts = Attempts()
    sequence = unavailable(attempts)
    sequence.apply(SECOND)
    assert attempts.batches == numbered((1, FIRST), (2, SECOND))


def test_a_pending_batch_that_is_applied_again_is_sent_once(clock: AttemptsClock) -> None:
    attempts = Attempts()
    sequence = unavailable(attempts)
    sequence.apply(FIRST)
    assert attempts.batches == numbered((1, FIRST))
    sequence.apply(SECOND)
    assert attempts.batches == numbered((1, FIRST), (2, SECOND))


def test_later_changes_never_take_the_number_of_a_pending_batch(clock: AttemptsClock) -> None:
    attempts = Attempts()
    sequence = unavailable(attempts)
    attempts.outcomes = [AWAY] * 100
    with pytest.raises(BackendUnavailable):
        sequence.apply(SECOND)
    assert attempts.batches
    assert all(batch == Sent(1, FIRST) for batch in attempts.batches)


def test_the_deadline_covers_pending_and_new_batch_together(clock: AttemptsClock) -> None:
    attempts = Attempts()
    sequence = unavailable(attempts)
    attempts.outcomes = [AWAY, AWAY, AWAY, None, AWAY]
    sequence.apply(SECOND)
    assert [batch.number for batch in attempts.batches] == [1, 1, 1, 1, 2, 2]
    assert attempts.timeouts == sorted(attempts.timeouts, reverse=True)


def test_a_refusal_frees_the_number() -> None:
    attempts = Attempts(StorageFull("full"))
    sequence = attempts.sequence(0, 10)
    with pytest.raises(StorageFull):
        sequence.apply(FIRST)
    sequence.apply(SECOND)
    assert attempts.batches == numbered((1, FIRST), (1, SECOND))


def test_a_refusal_after_an_open_attempt_keeps_the_batch(clock: AttemptsClock) -> None:
    # The first attempt may still be on its way: its number must not be given to other changes.
    attempts = Attempts(AWAY, StorageFull("full"))
    sequence = attempts.sequence(0, 10)
    with pytest.raises(StorageFull):
        sequence.apply(FIRST)
    sequence.apply(SECOND)
    assert attempts.batches == numbered((1, FIRST), (1, FIRST), (1, FIRST), (2, SECOND))


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_leaves_the_batch_pending(interrupt: type[BaseException]) -> None:
    attempts = Attempts(interrupt())
    sequence = attempts.sequence(0, 10)
    with pytest.raises(interrupt):
        sequence.apply(FIRST)
    sequence.apply(SECOND)
    assert attempts.batches == numbered((1, FIRST), (1, FIRST), (2, SECOND))


def test_an_interrupt_in_the_pause_leaves_the_batch_pending(
    clock: AttemptsClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    attempts = Attempts(AWAY)
    sequence = attempts.sequence(0, 10)
    with monkeypatch.context() as patch:
        patch.setattr(clock, "sleep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sequence.apply(FIRST)
    sequence.apply(SECOND)
    assert attempts.batches == numbered((1, FIRST), (1, FIRST), (2, SECOND))


def test_fenced_at_the_first_attempt_is_a_certain_outcome() -> None:
    sequence = Attempts(FencedOut("fenced", owner="other")).sequence(0, 10)
    with pytest.raises(FencedOut) as caught:
        sequence.apply(FIRST)
    assert not caught.value.outcome_unknown


def test_fenced_after_a_lost_answer_is_an_unknown_outcome(clock: AttemptsClock) -> None:
    sequence = Attempts(AWAY, FencedOut("fenced", owner="other")).sequence(0, 10)
    with pytest.raises(FencedOut) as caught:
        sequence.apply(FIRST)
    assert caught.value.outcome_unknown


def test_fenced_with_a_pending_batch_is_an_unknown_outcome(clock: AttemptsClock) -> None:
    attempts = Attempts()
    sequence = unavailable(attempts)
    attempts.outcomes = [FencedOut("fenced")]
    with pytest.raises(FencedOut) as caught:
        sequence.apply(SECOND)
    assert caught.value.outcome_unknown


def test_what_was_never_sent_is_not_pending(clock: AttemptsClock) -> None:
    attempts = Attempts(*[NOT_SENT] * 100)
    sequence = attempts.sequence(0, 5)
    with pytest.raises(BackendUnavailable) as caught:
        sequence.apply(FIRST)
    assert not caught.value.outcome_unknown
    attempts.outcomes, attempts.batches = [], []
    sequence.apply(SECOND)
    assert attempts.batches == numbered((1, SECOND))


def test_one_attempt_that_was_sent_leaves_the_outcome_unknown(clock: AttemptsClock) -> None:
    attempts = Attempts(AWAY, *[NOT_SENT] * 100)
    sequence = attempts.sequence(0, 5)
    with pytest.raises(BackendUnavailable) as caught:
        sequence.apply(FIRST)
    assert caught.value.outcome_unknown
    attempts.outcomes, attempts.batches = [], []
    sequence.apply(SECOND)
    assert attempts.batches == numbered((1, FIRST), (2, SECOND))


def test_a_batch_is_sealed_once_and_says_its_size(clock: AttemptsClock) -> None:
    attempts = Attempts(AWAY, AWAY)
    assert attempts.sequence(0, 10).apply(FIRST) == (1, len(b"key") + 1)
    assert attempts.seals.made == [FIRST]


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_waiting_for_another_batch_ends_at_the_deadline() -> None:
    entered, leave = threading.Event(), threading.Event()

    def stalls(batch: Batch, timeout: float) -> None:
        entered.set()
        leave.wait()

    sequence = BatchSequence(0, 0.05, Seals().seal, stalls)
    other = in_thread(lambda: sequence.apply(FIRST))
    entered.wait()
    try:
        with pytest.raises(BackendUnavailable, match=r"another batch of this store was still waiting after 0\.05 s"):
            sequence.apply(SECOND)
    finally:
        leave.set()
        other.join()
    # It was never sent, so it is not pending.
    sequence.apply(THIRD)
    assert sequence.last_committed == 2


def test_batches_of_many_threads_commit_one_by_one() -> None:
    inside = threading.Lock()
    seals = Seals()
    committed: list[Sent] = []

    def commit(batch: Batch, timeout: float) -> None:
        assert inside.acquire(blocking=False), "two batches at once"
        time.sleep(0.0001)
        committed.append(seals.unsealed(batch))
        inside.release()

    sequence = BatchSequence(0, 60, seals.seal, commit)

    def work(user: int) -> None:
        for generation in range(20):
            sequence.apply(Changes([TrackedUser(f"@{user}:x", generation=generation)]))

    for thread in [in_thread(functools.partial(work, user)) for user in range(8)]:
        thread.join()
    assert [batch.number for batch in committed] == list(range(1, 161))
    for user in range(8):
        generations = [
            record.generation  # type: ignore[attr-defined]  # puts() of a kind yields that kind
            for batch in committed
            for record in changes_of(batch).puts(TrackedUser)
            if record.key == (f"@{user}:x",)
        ]
        assert generations == list(range(20))
