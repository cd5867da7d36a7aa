"""Exactly once: the numbering, freezing and resending of an owner's batches (promise P5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from cryptostore.errors import BackendUnavailable, FencedOut
from cryptostore.records.changes import Changes

from .attempts import Attempts
from .clock import microseconds_now
from .interface import Batch, Row
from .turns import Turns


@dataclass(frozen=True, slots=True, repr=False)
class SealedRows:
    """Rows to put that are sealed already, and keys to delete, for commands that do not read records."""

    rows: tuple[Row, ...]
    deletes: tuple[bytes, ...] = ()

    def __len__(self) -> int:
        return len(self.rows) + len(self.deletes)

    def batch(self, epoch: int, incarnation: int, number: int) -> Batch:
        """The batch of this owner that has this number."""
        return Batch(epoch, incarnation, number, sorted(self.rows), sorted(self.deletes), microseconds_now())


C = TypeVar("C", bound=Changes | SealedRows)


class Put(NamedTuple):
    """What a call made durable: how many records, and how many bytes of keys and values."""

    records: int
    size: int

    def with_these(self, sent: _Pending[C]) -> Put:
        """This and another batch."""
        return Put(self.records + len(sent.changes), self.size + _size(sent.batch))


class _Pending(NamedTuple, Generic[C]):
    """A batch whose outcome is unknown, and the changes in it before they were sealed."""

    changes: C
    batch: Batch


class BatchSequence(Generic[C]):
    """Numbers one owner's batches from the last committed one on and sends each until its outcome is known.

    `seal(number, changes)` makes a batch, once, and `commit(batch, timeout)` is one attempt at it. A batch whose
    outcome is open is kept and sent again, unchanged, before anything else: a new batch under its number could be taken
    for the one that stalled, and be lost.
    """

    def __init__(
        self,
        last_committed: int,
        deadline: float,
        seal: Callable[[int, C], Batch],
        commit: Callable[[Batch, float], None],
    ) -> None:
        self._last_committed = last_committed
        self._deadline = deadline
        self._seal = seal
        self._commit = commit
        self._pending: _Pending[C] | None = None
        self._turns = Turns()

    @property
    def last_committed(self) -> int:
        """The number of the last batch that is known to be durable."""
        return self._last_committed

    def apply(self, changes: C, attempts: Attempts | None = None) -> Put:
        """Make `changes` durable, and return what was put, that of a batch that was pending included.

        Raises BackendUnavailable after the deadline, with the batch kept as pending if it was sent.
        """
        attempts = attempts or Attempts(self._deadline)
        put = Put(0, 0)
        with self._turns.one(self._deadline) as is_in:
            if not is_in:
                raise BackendUnavailable(
                    f"another batch of this store was still waiting after {self._deadline:g} s", outcome_unknown=False
                )
            pending = self._pending
            if pending is not None:
                self._send(pending, attempts)
                put = put.with_these(pending)
                if pending.changes == changes:
                    return put
            if not changes:
                return put
            new = _Pending(changes, self._seal(self._last_committed + 1, changes))
            self._send(new, attempts)
            return put.with_these(new)

    def _send(self, sent: _Pending[C], attempts: Attempts) -> None:
        outcome_unknown = self._pending is not None
        while True:
            # Set before the attempt: an interrupt in the middle of it leaves the outcome open, too.
            self._pending = sent
            try:
                self._commit(sent.batch, attempts.timeout())
            except BackendUnavailable as error:
                outcome_unknown |= error.outcome_unknown
                error.outcome_unknown = outcome_unknown
                if attempts.pause(error):
                    continue
                if outcome_unknown:
                    raise BackendUnavailable(f"{error}; {_waiting(sent.batch)}") from error
                self._pending = None
                raise
            except FencedOut as error:
                error.outcome_unknown = outcome_unknown
                raise
            except Exception:
                # Every other error is a refusal: the batch was rolled back and its number is free again,
                # unless an earlier attempt at it may still be on its way.
                if not outcome_unknown:
                    self._pending = None
                raise
            self._last_committed = sent.batch.number
            self._pending = None
            return


def _waiting(batch: Batch) -> str:
    count = len(batch.puts) + len(batch.deletes)
    records = f"{count:,} record{'s' * (count != 1)}"
    return (
        f"batch {batch.number} ({records}, {_size(batch):,} bytes) is tried again, unchanged, before anything newer; "
        "if it takes longer than the deadline, put a longer one into the URL"
    )


def _size(batch: Batch) -> int:
    return sum([len(row.key) + len(row.value) for row in batch.puts])
