"""Restarts: what was acknowledged is there, whole, after a clean end and after SIGKILL."""

from __future__ import annotations

import random
import time

import pytest

from cryptostore import KINDS, Record
from cryptostore_contract.cases.base import CaseGroup
from cryptostore_contract.children import Child, child
from cryptostore_contract.handles import Handles, by_kind, everything, own, put
from cryptostore_contract.harness import Ability, Harness
from cryptostore_contract.manifest import case
from cryptostore_contract.samples import ALICE, BOB, one_of_each, samples
from cryptostore_contract.worker import digest, left_by


class RestartCases(CaseGroup):
    """Processes that end."""

    @case("RESTART-1", checks=("COMMIT-4", "CLOSE-1", "CLOSE-3"), needs=(Ability.REOPEN,))
    def test_everything_is_there_after_reopening(self, handles: Handles) -> None:
        with handles.open() as backend, own(backend, ALICE) as store:
            put(store, *one_of_each())
            owned = backend.accounts()[ALICE]
        with handles.open() as backend:
            assert backend.accounts() == {ALICE: owned}
        assert handles.everything() == by_kind(one_of_each())
        assert handles.own().ownership.sequence == 1

    @case("RESTART-2", checks=("COMMIT-4", "GET-1", "SCAN-1"), needs=(Ability.OTHER_PROCESS,))
    def test_a_new_process_reads_what_this_one_wrote(self, handles: Handles, harness: Harness) -> None:
        with handles.open() as backend, own(backend, ALICE) as store:
            for kind in KINDS:
                put(store, *samples(kind, 10))
            expected = digest(store)
        with child(harness.url, ALICE, "read") as reader:
            assert reader.finish() == [expected]

    @case("RESTART-3", checks=("COMMIT-4", "SELECT-1"), needs=(Ability.OTHER_PROCESS,))
    def test_this_process_reads_what_another_wrote(self, handles: Handles, harness: Harness) -> None:
        with child(harness.url, ALICE, "write", "5") as writer:
            assert writer.finish() == ["opening", "from 0", *"12345"]
        assert_left_by(5, handles.everything())

    @case("RESTART-4", checks=("COMMIT-7", "COMMIT-4", "APPLY-6"), needs=(Ability.OTHER_PROCESS,))
    def test_sigkill_while_committing_loses_no_acknowledged_batch_and_leaves_none_by_half(
        self, handles: Handles, harness: Harness
    ) -> None:
        kill_and_compare(handles, harness, kills=20)

    @case("RESTART-5", checks=("COMMIT-7", "COMMIT-4", "APPLY-6"), needs=(Ability.OTHER_PROCESS,))
    @pytest.mark.soak
    @pytest.mark.timeout(3_600)
    def test_two_hundred_sigkills_lose_nothing(self, handles: Handles, harness: Harness) -> None:
        kill_and_compare(handles, harness, kills=200)

    @case("RESTART-6", checks=("BACKEND-1", "COMMIT-7"), needs=(Ability.PROCESSES_AT_ONCE,))
    def test_processes_write_different_accounts_at_once(self, handles: Handles, harness: Harness) -> None:
        with child(harness.url, ALICE, "write", "40") as one, child(harness.url, BOB, "write", "40") as other:
            assert one.finish()[-1] == other.finish()[-1] == "40"
        assert_left_by(40, handles.everything(ALICE))
        assert_left_by(40, handles.everything(BOB))

    @case("RESTART-7", checks=("OPEN-1", "OPEN-2", "APPLY-3", "COMMIT-3"), needs=(Ability.PROCESSES_AT_ONCE,))
    def test_a_process_takes_over_from_another_that_is_writing(self, handles: Handles, harness: Harness) -> None:
        with child(harness.url, ALICE, "write") as older:
            while older.line() != "3":
                pass
            with child(harness.url, ALICE, "write", "10") as newer:
                newer_lines = newer.finish()
            older_lines = older.finish()
        assert older_lines[-1].startswith("fenced by ")
        numbers = acknowledged_in(older_lines) + acknowledged_in(newer_lines)
        assert numbers == list(range(1, len(numbers) + 1)), "a batch is missing, or two had one number"
        assert_left_by(len(numbers), handles.everything())


def kill_and_compare(handles: Handles, harness: Harness, kills: int) -> None:
    """Kill a writer again and again at random moments, and compare what is stored with what it acknowledged."""
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    with handles.open() as backend:
        own(backend, ALICE).close()
    stored = 0
    for round_number in range(kills):
        with child(harness.url, ALICE, "write") as writer:
            kill_at_a_random_moment(writer, moments)
            acknowledged = max([stored, *acknowledged_in(writer.lines)])
        note = f"kill {round_number} of the run with seed {seed}"
        # No other handle is open: the recovery that a crash calls for is this one's to do.
        with handles.open() as backend:
            # A server may still be at work for the dead process. Its batch comes before a new owner, or not at all.
            stored = own(backend, ALICE).ownership.sequence
            assert stored in (acknowledged, acknowledged + 1), note
            assert_left_by(stored, everything(backend, ALICE), note)


def kill_at_a_random_moment(writer: Child, moments: random.Random) -> None:
    """Kill a writer after some batches, a little later than it acknowledged the last of them."""
    for _ in range(moments.randrange(1, 10)):
        writer.line()
    time.sleep(moments.uniform(0, 0.005))
    writer.kill()


def acknowledged_in(lines: list[str]) -> list[int]:
    """The numbers of the batches that a writer said were durable."""
    return [int(line) for line in lines if line.isdigit()]


def assert_left_by(number: int, stored: dict[type[Record], list[Record]], note: str = "") -> None:
    """What is stored is what a writer's batches up to `number` leave, no more and no less."""
    expected = left_by(number)
    assert stored.keys() == expected.keys(), note
    for kind, records in expected.items():
        assert stored[kind] == records, note
