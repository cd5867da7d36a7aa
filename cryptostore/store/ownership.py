"""Who owns an account, and what became of an owner's batch (promises P3 and P5)."""

from __future__ import annotations

import enum
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptostore.errors import AccountNotFound, BackendInvalid, DatabaseWentBack, FencedOut
from cryptostore.records.record import Account

from .clock import microseconds_now
from .interface import AccountRow, Batch, TakeOver

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Mode(enum.Enum):
    """How a store is opened."""

    #: The account's one writer: opening takes the account over from its last owner.
    OWN = "own"
    #: Read only: takes nothing over and waits for no other process.
    READ = "read"


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who owns an account: its epoch and incarnation, the number of its last batch, who took it over, and when.

    The epoch grows with each take-over. The incarnation is random, and tells two owners apart whose epochs are equal
    because a backup was put back between them. `written_at` is when the last batch was made; None before the first.
    """

    epoch: int
    incarnation: int
    sequence: int
    owner: str
    since: datetime
    written_at: datetime | None = None

    @classmethod
    def of(cls, row: AccountRow) -> Ownership:
        """The ownership in an account's row. Raises ValueError for a time that no calendar has."""
        written_at = from_microseconds(row.written_at) if row.written_at else None
        return cls(row.epoch, row.incarnation, row.sequence, row.owner, from_microseconds(row.since), written_at)


def claim_of(owner: str) -> TakeOver:
    """What makes the process with this name the owner of an account from now on."""
    return TakeOver(_draw(), _draw(), owner, microseconds_now())


def from_microseconds(microseconds: int) -> datetime:
    """The aware time that many microseconds after 1970 (UTC). Raises ValueError beyond the years 1 to 9999."""
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        raise ValueError("is out of the range of times") from None


def confirm(account: Account, batch: Batch, found: AccountRow | None) -> None:
    """Return where the account's row says that the batch is committed, by this attempt or an earlier one.

    Raises AccountNotFound where the account was deleted, FencedOut where another owner has it, DatabaseWentBack where
    the database is older than what it acknowledged, BackendInvalid for a backend that did not do its work.
    """
    if found is None:
        raise AccountNotFound.deleted(account)
    _check_owner(account, (batch.epoch, batch.incarnation), batch.number - 1, found)
    if found.sequence == batch.number:
        return
    if found.sequence == batch.number - 1:
        raise BackendInvalid(f"the backend did not commit batch {batch.number} of {account}, and did not say why")
    if found.sequence < batch.number:
        raise DatabaseWentBack.to(account, batch.number - 1, found.sequence)
    raise FencedOut(
        f"another process goes on as this owner of {account}: its batches are at number {found.sequence}, and this "
        f"one's next is {batch.number}. Was this process forked, or its memory copied? An account has one owner: stop "
        "both, and open the account again in one of them",
        owner=found.owner,
        since=from_microseconds(found.since),
    )


def confirm_owner(account: Account, own: Ownership, acknowledged: int, found: AccountRow | None) -> None:
    """Return where the account's row says that the owner `own`, with batches up to `acknowledged`, still has it.

    Raises AccountNotFound, FencedOut and DatabaseWentBack as `confirm` does.
    """
    if found is None:
        raise AccountNotFound.deleted(account)
    _check_owner(account, (own.epoch, own.incarnation), acknowledged, found)
    if found.sequence < acknowledged:
        raise DatabaseWentBack.to(account, acknowledged, found.sequence)


def _draw() -> int:
    return secrets.randbelow(2**63 - 1) + 1


def _check_owner(account: Account, own: tuple[int, int], acknowledged: int, found: AccountRow) -> None:
    epoch, _ = own
    if found.epoch < epoch:
        # Older than this owner's take-over, so no newer owner wrote it.
        raise DatabaseWentBack.to(account, acknowledged, found.sequence)
    if (found.epoch, found.incarnation) != own:
        raise FencedOut.by(found.owner, from_microseconds(found.since), account)
