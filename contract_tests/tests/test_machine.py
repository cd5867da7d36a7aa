"""The state machine finds what is broken, and tells it shortly."""

from __future__ import annotations

import pytest

from cryptostore_contract import managed
from cryptostore_contract.cases.machine import explore
from cryptostore_contract.memory import MemoryHarness
from cryptostore_contract.mutants.batches import deletes_ignored


def test_a_failure_comes_with_the_shortest_history_that_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    deletes_ignored(monkeypatch)
    for harness in managed(MemoryHarness()):
        with pytest.raises(AssertionError) as failure:
            explore(harness, examples=300, steps=8)
    notes = "\n".join(failure.value.__notes__)
    assert "state = History()" in notes.splitlines()
    # One record that is put and deleted; a third operation may be left where shortening ended early.
    assert 2 <= notes.count("(cryptostore.records.") <= 3
