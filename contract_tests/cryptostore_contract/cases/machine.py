"""Histories that hypothesis makes up, whatever comes in whatever order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from cryptostore_contract.cases.base import CaseGroup
from cryptostore_contract.cases.killed_machine import USUAL, KilledMachine
from cryptostore_contract.cases.store_machine import StoreMachine
from cryptostore_contract.children import doomed
from cryptostore_contract.harness import Ability, Harness
from cryptostore_contract.manifest import case
from cryptostore_contract.samples import ALICE


class MachineCases(CaseGroup):
    """Whatever comes in whatever order."""

    @case(
        "MACHINE-1",
        checks=("APPLY-3", "APPLY-6", "COMMIT-1", "GET-1", "OPEN-1", "SCAN-1", "SELECT-1"),
        needs=(Ability.REOPEN,),
    )
    def test_any_short_history_is_that_of_plain_dictionaries(self, harness: Harness) -> None:
        explore(harness, examples=16, steps=10)

    @case("MACHINE-2", checks=("APPLY-6", "COMMIT-1", "OPEN-1"), needs=(Ability.REOPEN,))
    @pytest.mark.soak
    @pytest.mark.timeout(7_200)
    def test_thousands_of_long_histories_are_those_of_plain_dictionaries(self, harness: Harness) -> None:
        explore(harness, examples=2_000, steps=60)

    @case(
        "MACHINE-3",
        checks=("COMMIT-7", "COMMIT-4", "APPLY-6", "OPEN-1"),
        needs=(Ability.REOPEN, Ability.OTHER_PROCESS),
    )
    # Hypothesis shortens a failure for five minutes at most, which are not to be cut off.
    @pytest.mark.timeout(600)
    def test_a_short_history_goes_on_from_before_or_after_a_batch_whose_process_is_killed(
        self, harness: Harness
    ) -> None:
        explore_kills(harness, examples=20, steps=8)

    @case(
        "MACHINE-4",
        checks=("COMMIT-7", "COMMIT-4", "APPLY-6", "OPEN-1"),
        needs=(Ability.REOPEN, Ability.OTHER_PROCESS),
    )
    @pytest.mark.soak
    @pytest.mark.timeout(7_200)
    def test_hundreds_of_long_histories_go_on_from_before_or_after_batches_whose_processes_are_killed(
        self, harness: Harness
    ) -> None:
        explore_kills(harness, examples=300, steps=60)


def explore(on: Harness, examples: int, steps: int) -> None:
    """Let hypothesis look for a history that the database and the dictionaries tell differently, and shorten it."""
    _explore(StoreMachine, examples, steps, harness=on)


def explore_kills(on: Harness, examples: int, steps: int) -> None:
    """The same with histories in which processes are killed."""
    with doomed(on.url) as processes:
        events = processes.events(ALICE, USUAL)
        _explore(KilledMachine, examples, steps, harness=on, doomed=processes, events=events)


def _explore(machine: type[StoreMachine], examples: int, steps: int, **what: Any) -> None:
    # Its name stands in what hypothesis prints.
    run_state_machine_as_test(
        type("History", (machine,), what),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            print_blob=False,
            # A run that does without the shortest history may say so in its profile.
            phases=[phase for phase in (Phase.generate, Phase.shrink) if phase in settings().phases],
            suppress_health_check=list(HealthCheck),
        ),
    )
