"""The state machine with programs that are killed: processes of their own, which SIGKILL ends at their batches."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, ClassVar, Final

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from cryptostore import Account, Changes
from cryptostore_contract.cases.store_machine import (
    KINDS,
    Model,
    StoreMachine,
    accounts,
    batch_of,
    deletes_of_a_batch,
    name_of,
    owners,
    puts_of_a_batch,
    puts_of_a_full_batch,
)
from cryptostore_contract.children import Death, Doomed
from cryptostore_contract.harness import Ability
from cryptostore_contract.samples import ALICE

#: Into how many parts the events of a usual batch are divided, to kill in one of them.
_PARTS: Final = 1_000
#: A little beyond the end as well, which comes sooner or later as the batch is small or large.
_parts: Final = st.integers(1, 1_200)
_moments: Final = st.sampled_from(("before", "unsaid", "said"))

#: Of the size that most drawn ones have.
USUAL: Final = batch_of([(kind, 1, 1) for kind in KINDS], [(kind, 2) for kind in KINDS[:2]])


class KilledMachine(StoreMachine):
    """Any program may do its next batch in a process of its own, and die of it."""

    #: Of the case that runs the machine: the processes that are killed, and how many events the usual batch has there.
    doomed: ClassVar[Doomed]
    events: ClassVar[int]

    @initialize(owner=owners, puts=puts_of_a_full_batch, deletes=deletes_of_a_batch, part=_parts)
    def start_with_a_kill(self, owner: int, puts: list[Any], deletes: list[Any], part: int) -> None:
        """Kill inside a batch before or behind those that a history begins with: chance alone may leave it out."""
        self.kill_inside(owner, ALICE, puts, deletes, part)

    @rule(owner=owners, account=accounts, puts=puts_of_a_full_batch, deletes=deletes_of_a_batch, part=_parts)
    def kill_inside(self, owner: int, account: Account, puts: list[Any], deletes: list[Any], part: int) -> None:
        """Kill a program in the middle of a batch, or behind its last event if it has fewer than most."""
        self._kill(owner, account, batch_of(puts, deletes), f"{max(1, self.events * part // _PARTS)}")

    @rule(owner=owners, account=accounts, puts=puts_of_a_batch, deletes=deletes_of_a_batch, moment=_moments)
    def kill_around(self, owner: int, account: Account, puts: list[Any], deletes: list[Any], moment: str) -> None:
        """Kill a program before a batch, between its commit and the answer, or when that was said."""
        self._kill(owner, account, batch_of(puts, deletes), moment)

    def _kill(self, owner: int, account: Account, changes: Changes, moment: str) -> None:
        alone = Ability.PROCESSES_AT_ONCE not in self.harness.abilities
        self.end(owner, abandon=False)
        if alone:
            self._close_everything()
        death = self.doomed.kill(account, name_of(owner), changes, moment)
        before = self.models[account]
        after = deepcopy(before)
        after.write(changes)
        self._find(owner, account, death, _possible(before, after, moment, death))
        if alone:
            self._observer = self.harness.open()

    def _find(self, owner: int, account: Account, death: Death, possible: list[Model]) -> None:
        """Start the killed program again, which finds one of the possible states; it is the model from there on."""
        stored = self._backend(owner).accounts()[account]
        assert stored.epoch == death.epoch, "the killed process owned the account, and its take-over is not there"
        # What is still on its way from the killed process to a server is there, or fenced, once this returns.
        store = self._open(owner, account)
        found = [model for model in possible if model.batches == store.ownership.sequence]
        assert found, f"batch {store.ownership.sequence} is the last, and not {possible[-1].batches}"
        self.models[account] = found[0]
        self.models[account].owner = owner
        self._compare(store, account)


def _possible(before: Model, after: Model, moment: str, death: Death) -> list[Model]:
    """What may be stored: nothing that lies between the two."""
    if moment == "before":
        return [before]
    return [after] if moment in ("unsaid", "said") or death.answered else [before, after]
