"""The state machine finds what is broken, and tells it shortly."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract_mutants import load, named
from contract_mutants.batches import deletes_ignored
from cryptostore_contract import managed
from cryptostore_contract.cases.machine import explore, explore_kills
from cryptostore_contract.live import live_harness
from cryptostore_contract.memory import MemoryHarness
from cryptostore_contract.places import place_for


def test_a_failure_comes_with_the_shortest_history_that_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    deletes_ignored(monkeypatch)
    for harness in managed(MemoryHarness()):
        with pytest.raises(AssertionError) as failure:
            explore(harness, examples=300, steps=8)
    notes = "\n".join(failure.value.__notes__)
    assert "state = History()" in notes.splitlines()
    # One record that is put and deleted; a third operation may be left where shortening ended early.
    assert 2 <= notes.count("(cryptostore.records.") <= 3


def test_a_failure_of_a_killed_process_comes_with_the_kill(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    load("sqlite")
    named("epoch_raised_with_the_first_batch").apply(monkeypatch)
    place = place_for(f"sqlite:///{tmp_path}/keys.db", "kills")
    place.prepare()
    for harness in managed(live_harness(place)):
        with pytest.raises(AssertionError, match="its take-over is not there") as failure:
            explore_kills(harness, examples=20, steps=8)
    notes = "\n".join(failure.value.__notes__)
    assert "state = History()" in notes.splitlines()
    # One kill, which every history begins with; another may be left where shortening ended early.
    assert "state.start_with_a_kill(" in notes
    assert 1 <= notes.count("kill") <= 2
    # What one batch needs for a number, and what a killed one begins with.
    assert 4 <= notes.count("(cryptostore.records.") <= 6
