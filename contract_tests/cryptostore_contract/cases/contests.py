"""Two handles on one account, one of which is held in the middle of a call: what the held cases of a group stand on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from functools import partial
from typing import Final

from cryptostore import AccountRow, BackendUnavailable, Database, Row
from cryptostore_contract import waiting
from cryptostore_contract.handles import Handles
from cryptostore_contract.harness import Harness
from cryptostore_contract.held import events_of, held
from cryptostore_contract.raw import EVERYTHING, TIMEOUT, RawOwner, found, rows_of
from cryptostore_contract.samples import ALICE
from cryptostore_contract.waiting import result_of, start

#: Seconds that what is done meanwhile is given; then it waits for a lock, and the held call is let go.
_MEANWHILE: Final = 0.3
_PAUSE: Final = 0.005

Ask = Callable[[Database, int], Sequence[Row]]


class TakeOvers:
    """Alice's account, whose owner is held in the middle of a commit while another takes over."""

    def __init__(self, handles: Handles) -> None:
        self._older: Final = handles.open().database
        self._newer: Final = handles.open().database
        self._rows = {b"key": b"at first"}
        RawOwner(self._older).put(self._rows)

    def events(self) -> int:
        """How many events a commit has; one is made."""
        owner = RawOwner(self._older)
        self._rows = {b"key": b"counted"}
        batch = owner.batch(self._rows)
        return events_of(lambda: owner.commit(batch))

    def comes_first(self, event: int) -> bool:
        """Whether a take-over comes before the batch of an owner that is held at this event.

        Fails where the batch, let go, changes anything behind it.
        """
        owner = RawOwner(self._older)
        batch = owner.batch({b"key": b"held at event %d" % event, b"more": b"of it"}, [b"key of nobody"])
        with held(partial(self._older.commit, owner.row.id, batch, TIMEOUT), event) as committing:
            taking_over = start(partial(RawOwner, self._newer))
            wait([taking_over], _MEANWHILE)
        newer = result_of(taking_over)
        answer = _answer(lambda: result_of(committing))
        is_first = newer.row.sequence == batch.number - 1
        after = self._rows if is_first else dict(batch.puts)
        self._check(newer, after, f"of an owner that was held at event {event}, and taken over")
        expected = newer.row if is_first else batch.row_after(owner.row)
        assert answer in (None, expected), f"event {event}"
        newer.put({b"key": b"newer"}, [b"more"])
        self._rows = {b"key": b"newer"}
        return is_first

    def _check(self, newer: RawOwner, after: dict[bytes, bytes], note: str) -> None:
        assert found(self._newer) == newer.row, f"the row {note}"
        assert rows_of(self._newer, newer.row.id) == after, f"the batch {note}"


class Looks:
    """An account of which all is replaced, batch after batch, while a reader or the writer is held in the middle."""

    def __init__(self, handles: Handles, keys: Sequence[bytes], size: int) -> None:
        self._owner: Final = handles.raw()
        self._reader: Final = handles.open().database
        self._keys: Final = keys
        self._size: Final = size
        self._write()

    def events_of_a_look(self, ask: Ask) -> int:
        """How many events it has to ask for all."""
        return events_of(lambda: ask(self._reader, self._owner.row.id))

    def events_of_a_batch(self) -> int:
        """How many events a batch has; it is made."""
        return events_of(self._write)

    def batch_comes_first(self, ask: Ask, event: int) -> bool:
        """Whether a batch is seen that is made while a reader is held at this event; fails if it is seen by half."""
        older = self._owner.row.sequence
        with held(lambda: ask(self._reader, self._owner.row.id), event) as asking:
            writing = start(self._write)
            wait([writing], _MEANWHILE)
        seen = self._seen(result_of(asking), f"by a reader that was held at event {event}")
        result_of(writing)
        assert seen in (older, older + 1)
        return seen > older

    def look_comes_first(self, event: int) -> bool:
        """Whether a batch is not yet seen whose writer is held at this event; fails if it is seen by half."""
        older = self._owner.row.sequence
        with held(self._write, event) as writing:
            asking = start(partial(self._reader.ranges, self._owner.row.id, [EVERYTHING], TIMEOUT))
            wait([asking], _MEANWHILE)
        seen = self._seen(result_of(asking), f"while its writer was held at event {event}")
        result_of(writing)
        assert seen in (older, older + 1)
        return seen == older

    def _write(self) -> None:
        number = b"%020d" % (self._owner.row.sequence + 1)
        self._owner.put(dict.fromkeys(self._keys, number.ljust(self._size, b".")))

    def _seen(self, rows: Sequence[Row], note: str) -> int:
        """The number of the batch that an answer shows."""
        assert sorted(row[0] for row in rows) == sorted(self._keys), f"not every row was seen {note}"
        numbers = {int(row[1][:20]) for row in rows}
        assert len(numbers) == 1, f"batches {sorted(numbers)} are mixed in what was seen {note}"
        return numbers.pop()


class Queue:
    """An account whose lock the harness holds: a take-over waits for it, and the older owner's batch behind that."""

    def __init__(self, handles: Handles, harness: Harness) -> None:
        self._harness: Final = harness
        self._newer: Final = handles.open().database
        self._older: Final = RawOwner(handles.open().database)
        self._older.put({b"key": b"at first"})

    def run(self) -> None:
        """Let both go on; fails where the batch changes anything behind the take-over."""
        batch = self._older.batch({b"key": b"older"})
        with self._harness.locked_account(ALICE) as sessions:
            taking_over = start(partial(RawOwner, self._newer))
            _until(lambda: sessions() > 0 or taking_over.done())
            committing = start(partial(self._older.commit, batch))
            _until(lambda: sessions() > 1 or committing.done())
            assert not taking_over.done(), "a take-over does not wait for the lock that the harness holds"
            assert not committing.done(), "a commit does not wait for the lock that the harness holds"
        newer = result_of(taking_over)
        assert result_of(committing) == newer.row, "the answer to a batch behind a take-over"
        assert found(self._newer) == newer.row, "the row behind a take-over"
        assert newer.everything() == {b"key": b"at first"}, "a batch was committed behind a take-over"


def _answer(call: Callable[[], AccountRow | None]) -> AccountRow | None:
    """What a commit answered, or None where it was not to be had: one that was held may have lost its session."""
    try:
        return call()
    except BackendUnavailable:
        return None


def _until(is_so: Callable[[], bool]) -> None:
    ends = time.monotonic() + waiting.HANGS
    while not is_so():
        assert time.monotonic() < ends, "no call came to wait for the lock that the harness holds"
        time.sleep(_PAUSE)
