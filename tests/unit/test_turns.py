"""Turns: one at a time, waited for no longer than given, and left by an interrupt anywhere."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event

from cryptostore import Row
from cryptostore.store.sequence import BatchSequence, SealedRows
from cryptostore.store.turns import Turns
from interrupted_calls import is_interrupted


def test_one_is_let_in_at_a_time_and_the_next_when_it_leaves() -> None:
    taken = Turns()
    waits = Event()

    def wait() -> bool:
        waits.set()
        with taken.one(60) as is_in:
            return is_in

    with ThreadPoolExecutor() as pool:
        with taken.one(0) as is_in:
            assert is_in
            later = pool.submit(wait)
            waits.wait()
            with taken.one(0) as is_second_in:
                assert not is_second_in
        assert later.result(60)


def test_an_interrupt_anywhere_leaves_nothing_taken() -> None:
    taken = Turns()

    def take() -> None:
        with taken.one(0):
            pass

    after = 1
    while is_interrupted(take, after):
        with taken.one(0) as is_in:
            assert is_in, f"after {after} calls"
        after += 1
    assert after > 5


def test_an_interrupt_anywhere_in_a_wait_is_told_as_it_is_and_leaves_nothing_taken() -> None:
    taken = Turns()

    def wait() -> None:
        with taken.one(0.01) as is_in:
            assert not is_in

    after = 1
    with taken.one(0):
        while is_interrupted(wait, after):
            after += 1
    assert after > 5
    with taken.one(0) as is_in:
        assert is_in


def test_an_interrupt_anywhere_at_the_end_of_a_turn_lets_the_next_in() -> None:
    taken = Turns()

    def wait() -> bool:
        with taken.one(60) as is_in:
            return is_in

    after, interrupted = 0, True
    with ThreadPoolExecutor() as pool:
        while interrupted:
            after += 1
            turn = taken.one(0)
            turn.__enter__()
            later = pool.submit(wait)
            while not taken._waiters:
                time.sleep(0.001)
            interrupted = is_interrupted(partial(turn.__exit__, None, None, None), after)
            # An interrupt before the end of the block had begun ends it now.
            del turn
            assert later.result(30), f"after {after} calls"
    assert after > 5


def test_an_interrupt_anywhere_in_a_batch_leaves_the_store_to_the_next() -> None:
    numbers: list[int] = []
    changes = SealedRows((Row(b"key", b"value"),))
    sequence: BatchSequence[SealedRows] = BatchSequence(
        0, 0.1, lambda number, given: given.batch(1, 1, number), lambda batch, _: numbers.append(batch.number)
    )
    after = 1
    while is_interrupted(partial(sequence.apply, changes), after):
        sequence.apply(changes)
        after += 1
    assert after > 5
    assert sorted(set(numbers)) == list(range(1, sequence.last_committed + 1))
