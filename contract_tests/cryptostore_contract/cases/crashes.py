"""SIGKILL at chosen moments of one commit: what is stored is the batch before it, or it, and never anything between."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import pytest

from cryptostore import Record
from cryptostore_contract.cases.base import CaseGroup
from cryptostore_contract.children import child
from cryptostore_contract.handles import Handles, by_kind, everything, own
from cryptostore_contract.harness import Ability, Harness
from cryptostore_contract.manifest import case
from cryptostore_contract.samples import ALICE
from cryptostore_contract.worker import replacement

#: How far kills by time reach beyond the end of a commit, which is not always as fast as when it was measured.
_BEYOND = 1.25


class CrashCases(CaseGroup):
    """A process that is killed in the middle of one batch, and the database as the next one finds it."""

    @case("CRASHES-1", checks=("COMMIT-7", "COMMIT-4", "APPLY-6"), needs=(Ability.OTHER_PROCESS,))
    def test_a_kill_before_a_commit_leaves_nothing_and_after_it_everything(
        self, handles: Handles, harness: Harness
    ) -> None:
        crashes = Crashes(handles, harness)
        assert not crashes.commits("die-around-commit", "before")
        assert crashes.commits("die-around-commit", "unsaid"), "apply returned, and the batch is not there"
        assert crashes.commits("die-around-commit", "said"), "the batch was acknowledged, and is not there"

    @case("CRASHES-2", checks=("COMMIT-7", "APPLY-6"), needs=(Ability.OTHER_PROCESS,))
    def test_kills_around_the_moment_of_a_commit_find_it_whole_or_not_at_all(
        self, handles: Handles, harness: Harness
    ) -> None:
        crashes = Crashes(handles, harness)
        crashes.find_the_moment()

    @case("CRASHES-3", checks=("COMMIT-7", "APPLY-6"), needs=(Ability.OTHER_PROCESS,))
    def test_kills_spread_over_a_commit_find_it_whole_or_not_at_all(self, handles: Handles, harness: Harness) -> None:
        crashes = Crashes(handles, harness)
        crashes.at_events(spread(crashes.events(), 6))
        crashes.at_random_times(8)

    @case("CRASHES-4", checks=("COMMIT-7", "APPLY-6"), needs=(Ability.OTHER_PROCESS,))
    @pytest.mark.soak
    @pytest.mark.timeout(3_600)
    def test_kills_at_hundreds_of_events_find_a_commit_whole_or_not_at_all(
        self, handles: Handles, harness: Harness
    ) -> None:
        crashes = Crashes(handles, harness)
        moment = crashes.find_the_moment()
        # All that can be told apart near the moment itself, and an even choice of the rest.
        crashes.at_events(range(max(1, moment - 100), moment + 100))
        crashes.at_events(spread(crashes.events(), 400))

    @case("CRASHES-5", checks=("COMMIT-7", "APPLY-6"), needs=(Ability.OTHER_PROCESS,))
    @pytest.mark.soak
    @pytest.mark.timeout(3_600)
    def test_kills_at_hundreds_of_times_find_a_commit_whole_or_not_at_all(
        self, handles: Handles, harness: Harness
    ) -> None:
        Crashes(handles, harness).at_random_times(400)


class Crashes:
    """One account, to which child processes each apply the next batch and are killed doing it."""

    def __init__(self, handles: Handles, harness: Harness) -> None:
        self._handles = handles
        self._harness = harness
        self._stored = 0
        with handles.open() as backend:
            own(backend, ALICE).close()

    def events(self) -> int:
        """How many events one commit has; it is made."""
        return int(self._finished("count-events"))

    def find_the_moment(self) -> int:
        """The event from which on the batch is there, looked for by halving with a kill at each step.

        A store that commits by halves has a stretch of events in which neither the old state nor the new is whole.
        The search narrows down to where the one becomes the other, so it ends in that stretch, however short it is.
        """
        without, within = 0, self.events() + 1
        while within - without > 1:
            middle = (without + within) // 2
            if self.commits("die-at-event", f"{middle}"):
                within = middle
            else:
                without = middle
        return within

    def at_events(self, numbers: Iterable[int]) -> None:
        """Kill at each of these events."""
        for number in numbers:
            self.commits("die-at-event", f"{number}")

    def at_random_times(self, kills: int) -> None:
        """Kill at times that are spread over the length of a commit, and a little beyond."""
        seed = random.randrange(2**32)
        moments = random.Random(seed)
        length = _BEYOND * float(self._finished("measure"))
        for number in range(kills):
            self.commits("die-after", f"{length * (number + moments.random()) / kills}", note=f"seed {seed}")

    def commits(self, *task: str, note: str = "") -> bool:
        """Let a child be killed at its task, and say whether its batch is there; fails if it is there by half.

        Then the next batch is applied.
        """
        with child(self._harness.url, ALICE, *task) as writer:
            said = writer.dies()
        before, note = self._stored, "\n".join(filter(None, [" ".join(task), note, *said]))
        # No other handle is open: the recovery that a crash calls for is this one's to do.
        with self._handles.open() as backend:
            assert ALICE in backend.accounts(), f"the account is gone\n{note}"
            # A server may still be at work for the dead process. Its batch comes before a new owner, or not at all.
            store = own(backend, ALICE)
            found = store.ownership.sequence
            assert found in (before, before + 1), note
            assert everything(backend, ALICE) == left_by(found), note
            self._stored = found + 1
            store.apply(replacement(self._stored))
            assert everything(backend, ALICE) == left_by(self._stored), note
        return found > before

    def _finished(self, task: str) -> str:
        with child(self._harness.url, ALICE, task) as writer:
            (answer,) = writer.finish()
        self._stored += 1
        return answer


def left_by(number: int) -> dict[type[Record], list[Record]]:
    """All that is stored after the replacement of this number."""
    if number == 0:
        return {}
    changes = replacement(number)
    return by_kind(record for kind in changes.kinds() for record in changes.puts(kind))


def spread(events: int, count: int) -> Iterator[int]:
    """So many of the events, evenly spread, the first and the last among them; all of them if there are no more."""
    if events <= count:
        yield from range(1, events + 1)
    else:
        yield from (1 + (events - 1) * position // (count - 1) for position in range(count))
