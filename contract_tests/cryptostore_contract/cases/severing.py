"""One commit severed at offsets of its traffic: whatever had passed, and whatever arrives late, it is made once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

import pytest

from cryptostore import AccountRow, BackendUnavailable, Batch, Capability
from cryptostore_contract.cases.base import CaseGroup, assert_away
from cryptostore_contract.handles import Handles
from cryptostore_contract.harness import Ability, Harness
from cryptostore_contract.manifest import case
from cryptostore_contract.proxy import Direction
from cryptostore_contract.raw import RawOwner, found, rows_of
from cryptostore_contract.waiting import HANGS, finishes, result_of, start

T = TypeVar("T")

#: Seconds of a handle's deadline, and of one attempt: how long a server waits for a lock depends on them.
_DEADLINE = 2.0
_ATTEMPT = 1.0


class SeveringCases(CaseGroup):
    """Cuts inside a commit, with a retry, a new owner or a restart of the server behind each."""

    @case("SEVERING-1", checks=("COMMIT-2", "COMMIT-6", "COMMIT-7"), needs=(Ability.PROXY,))
    @pytest.mark.parametrize("direction", Direction)
    def test_a_commit_severed_anywhere_is_made_once_though_its_bytes_arrive_late(
        self, handles: Handles, harness: Harness, direction: Direction
    ) -> None:
        severed = Severed(handles, harness)
        for offset in sampled(severed.traffic(direction), 5):
            severed.cut_and_repeat(offset, direction)
            severed.stall_and_repeat(offset, direction)
        severed.assert_severed()

    @case("SEVERING-2", checks=("COMMIT-2", "COMMIT-3", "TAKE-3"), needs=(Ability.PROXY,))
    @pytest.mark.parametrize("direction", Direction)
    def test_a_commit_that_arrives_behind_a_new_owners_changes_nothing(
        self, handles: Handles, harness: Harness, direction: Direction
    ) -> None:
        severed = Severed(handles, harness)
        for offset in sampled(severed.traffic(direction), 3):
            severed.stall_and_take_over(offset, direction)
        severed.assert_severed()

    @case(
        "SEVERING-3",
        checks=("COMMIT-2", "COMMIT-7", "COMMIT-4"),
        needs=(Ability.PROXY, Ability.KILL_SERVER),
        unless_denied=Capability.SURVIVES_SERVER_RESTART,
    )
    def test_a_server_killed_inside_a_commit_has_it_whole_or_not_at_all(
        self, handles: Handles, harness: Harness
    ) -> None:
        severed = Severed(handles, harness)
        last = severed.traffic(Direction.TO_SERVER)
        for offset in (last // 2, last):
            severed.kill_server_and_repeat(offset)
        severed.assert_severed()

    @case("SEVERING-4", checks=("COMMIT-2", "COMMIT-6", "COMMIT-7"), needs=(Ability.PROXY, Ability.END_SESSIONS))
    def test_a_session_ended_by_an_administrator_inside_a_commit_costs_no_batch(
        self, handles: Handles, harness: Harness
    ) -> None:
        severed = Severed(handles, harness)
        for direction in Direction:
            for offset in sampled(severed.traffic(direction), 3):
                severed.end_session_and_repeat(offset, direction)
        severed.assert_severed()

    @case("SEVERING-5", checks=("COMMIT-2", "COMMIT-6", "COMMIT-7"), needs=(Ability.PROXY,))
    @pytest.mark.soak
    @pytest.mark.timeout(14_400)
    @pytest.mark.parametrize("direction", Direction)
    def test_a_commit_severed_at_every_byte_is_made_once(
        self, handles: Handles, harness: Harness, direction: Direction
    ) -> None:
        severed = Severed(handles, harness)
        for offset in range(severed.traffic(direction) + 1):
            severed.cut_and_repeat(offset, direction)
            severed.stall_and_repeat(offset, direction)
        severed.assert_severed()

    @case("SEVERING-6", checks=("COMMIT-2", "COMMIT-3", "TAKE-3"), needs=(Ability.PROXY,))
    @pytest.mark.soak
    @pytest.mark.timeout(14_400)
    @pytest.mark.parametrize("direction", Direction)
    def test_a_commit_severed_at_every_byte_changes_nothing_behind_a_new_owners(
        self, handles: Handles, harness: Harness, direction: Direction
    ) -> None:
        severed = Severed(handles, harness)
        for offset in range(severed.traffic(direction) + 1):
            severed.stall_and_take_over(offset, direction)
        severed.assert_severed()

    @case(
        "SEVERING-7",
        checks=("COMMIT-2", "COMMIT-7", "COMMIT-4"),
        needs=(Ability.PROXY, Ability.KILL_SERVER),
        unless_denied=Capability.SURVIVES_SERVER_RESTART,
    )
    @pytest.mark.soak
    @pytest.mark.timeout(14_400)
    def test_a_server_killed_at_a_hundred_bytes_of_a_commit_has_it_whole_or_not_at_all(
        self, handles: Handles, harness: Harness
    ) -> None:
        severed = Severed(handles, harness)
        for offset in sampled(severed.traffic(Direction.TO_SERVER), 100):
            severed.kill_server_and_repeat(offset)
        severed.assert_severed()


class Severed:
    """Alice's account, whose commits are severed one after the other; everything goes through the harness's proxy."""

    def __init__(self, handles: Handles, harness: Harness) -> None:
        self._harness = harness
        self._proxy = harness.proxy
        #: The present owner of the account, as it took over.
        self._owner = handles.raw()
        self._number = 0
        #: Whether each of the severed commits came to its offset.
        self._reached: list[bool] = []
        self._go_on("the first batch")

    def traffic(self, direction: Direction) -> int:
        """How many bytes a commit is in this direction; one is made. Fails if the proxy sees none."""
        with self._new_owner() as batch:
            before = self._proxy.passed(direction)
            self._attempt(batch)()
            self._number = batch.number
        passed = self._proxy.passed(direction) - before
        assert passed > 0, "a commit passed the proxy by: does every connection by `url` lead through it?"
        return passed

    def assert_severed(self) -> None:
        """Fails if most commits ended before their offsets: nothing was severed there."""
        # Some bytes more or less than in the commit that was measured are no matter.
        assert sum(self._reached) * 2 >= len(self._reached), f"offsets that were reached: {self._reached}"

    def cut_and_repeat(self, offset: int, direction: Direction) -> None:
        """Cut the connection for both sides, then make the commit again, and the next."""
        note = f"cut at byte {offset} {direction.value}"
        with self._new_owner() as batch:
            reached = self._proxy.cut_after(offset, direction)
            with contextlib.suppress(BackendUnavailable):
                finishes(self._attempt(batch))
            self._reached.append(reached.is_set())
            self._proxy.pass_all()
            self._repeat(batch, note)
            self._go_on(note)

    def stall_and_repeat(self, offset: int, direction: Direction) -> None:
        """Tell the client alone, make the commit again, and the next; and then let the server have the first."""
        note = f"stalled at byte {offset} {direction.value}"
        with self._new_owner() as batch:
            with self._stalled(batch, offset, direction):
                self._proxy.break_off()
            self._repeat(batch, note)
            self._go_on(note)
            self._proxy.deliver()
            self._holds(f"{note}, delivered late", self._number)

    def stall_and_take_over(self, offset: int, direction: Direction) -> None:
        """Tell the client alone, have a new owner commit, and then let the server have what the old one sent."""
        note = f"stalled at byte {offset} {direction.value} before a new owner"
        with self._new_owner() as batch:
            with self._stalled(batch, offset, direction):
                self._proxy.break_off()
            older = self._owner
            with self._new_owner():
                self._number = self._owner.row.sequence
                assert self._number in (batch.number - 1, batch.number), note
                self._go_on(note)
                self._proxy.deliver()
                newer = self._owner.row._replace(sequence=self._number)
            assert persist(partial(attempt, older, batch)) == newer, note
            self._holds(f"{note}, delivered late", self._number)

    def kill_server_and_repeat(self, offset: int) -> None:
        """Kill the server when it has so much of a commit; then make the commit again, and the next."""
        note = f"server killed at byte {offset}"
        with self._new_owner() as batch:
            with self._stalled(batch, offset, Direction.TO_SERVER):
                self._harness.kill_server()
                self._proxy.speak()
                assert_away(self._harness)
            self._harness.start_server()
            self._holds(note, batch.number - 1, batch.number)
            self._repeat(batch, note)
            self._go_on(note)

    def end_session_and_repeat(self, offset: int, direction: Direction) -> None:
        """Have the administrator end the session; then make the commit again, and the next."""
        note = f"session ended at byte {offset} {direction.value}"
        with self._new_owner() as batch:
            accepted = self._proxy.accepted
            with self._stalled(batch, offset, direction):
                self._harness.end_sessions()
                # The client reads what the server said of it.
                self._proxy.speak(late_bytes=True)
            persist(self._attempt(batch))
            assert self._proxy.accepted > accepted, f"{note}: the backend goes on in it"
            self._repeat(batch, note)
            self._go_on(note)

    @contextlib.contextmanager
    def _stalled(self, batch: Batch, offset: int, direction: Direction) -> Iterator[None]:
        """Attempt a commit, and be in the context when its traffic has come to the offset."""
        reached = self._proxy.silence_after(offset, direction)
        committing = start(self._attempt(batch))
        # A commit may be some bytes shorter than the one that was measured.
        while not reached.wait(0.01) and not committing.done():
            pass
        self._reached.append(reached.is_set())
        yield
        with contextlib.suppress(BackendUnavailable):
            result_of(committing)
        error = committing.exception()
        # Else the core would give the number to another batch, which could be taken for this one, and be lost.
        may_be_there = not isinstance(error, BackendUnavailable) or error.outcome_unknown
        assert may_be_there, f"a commit that was severed at byte {offset} is said not to have been sent"
        self._proxy.pass_all()
        self._proxy.speak(late_bytes=True)

    def _attempt(self, batch: Batch) -> Callable[[], AccountRow | None]:
        return partial(attempt, self._owner, batch)

    def _next(self) -> Batch:
        number = self._number + 1
        puts, deletes = replacement(number)
        return self._owner.batch(puts, deletes, ahead=number - self._owner.row.sequence)

    @contextlib.contextmanager
    def _new_owner(self) -> Iterator[Batch]:
        """An owner for one cut, with nothing left over from the one before it, and the batch that is to be cut."""
        with self._harness.open(deadline=_DEADLINE) as backend:
            self._owner = persist(partial(RawOwner, backend.database, timeout=_ATTEMPT))
            yield self._next()

    def _repeat(self, batch: Batch, note: str) -> None:
        """Send the same batch again until it is known to be there."""
        assert persist(self._attempt(batch)) == batch.row_after(self._owner.row), note
        self._number = batch.number
        self._holds(note, self._number)

    def _go_on(self, note: str) -> None:
        self._repeat(self._next(), note)

    def _holds(self, note: str, *numbers: int) -> None:
        """The account is as the batch of one of these numbers leaves it."""
        with self._harness.open() as backend:
            sequence = found(backend.database).sequence
            assert sequence in numbers, note
            assert rows_of(backend.database, self._owner.row.id) == replacement(sequence)[0], note


def attempt(owner: RawOwner, batch: Batch) -> AccountRow | None:
    """One short attempt at a commit."""
    return owner.database.commit(owner.row.id, batch, _ATTEMPT)


def replacement(number: int) -> tuple[dict[bytes, bytes], list[bytes]]:
    """A small batch that replaces what the one before it left, and deletes a part of it."""
    value = b"%d" % number
    return {b"ratchet": value, b"token": value, b"only in " + value: b"value"}, [b"only in %d" % (number - 1)]


def sampled(size: int, count: int) -> list[int]:
    """Offsets into so many bytes: the edges and, evenly spread between them, `count` more."""
    between = [size * position // (count + 1) for position in range(1, count + 1)]
    return sorted({0, 1, *between, size - 1, size})


def persist(call: Callable[[], T]) -> T:
    """Call again while the database is unavailable: a server may keep what a lost session locked for a while."""
    ends = time.monotonic() + HANGS
    while True:
        try:
            return finishes(call)
        except BackendUnavailable:
            assert time.monotonic() < ends, "the network is back, and the database is not"
            time.sleep(0.02)
