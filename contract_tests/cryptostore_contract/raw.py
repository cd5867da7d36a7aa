"""An account as bytes, past the core: rows that nothing sealed, batches that the suite numbers, older copies."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from cryptostore import Account, AccountRow, Batch, Database, Range, Row, TakeOver

from .samples import ALICE

#: Seconds for one attempt: far above what any takes, on any machine.
TIMEOUT: Final = 30.0

#: All that an account has.
EVERYTHING: Final = Range(b"", None)

_NO_ROWS: Final[Mapping[bytes, bytes]] = {}
_A_TIME: Final = 1_700_000_000


class RawOwner:
    """An owner of an account on bytes. It takes the account over as it is made."""

    def __init__(
        self,
        database: Database,
        account: Account = ALICE,
        claim: TakeOver | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self.database: Final = database
        #: As it was after the take-over, or after the last `put`.
        self.row = database.take_over(account.user_id, account.device_id, claim or new_claim(), timeout)

    def batch(
        self,
        puts: Mapping[bytes, bytes] = _NO_ROWS,
        deletes: Iterable[bytes] = (),
        *,
        ahead: int = 1,
        written_at: int = _A_TIME,
    ) -> Batch:
        """The next batch, or one that is further ahead."""
        return batch_on(self.row, puts, deletes, ahead=ahead, written_at=written_at)

    def commit(self, batch: Batch) -> AccountRow | None:
        """One attempt at a batch."""
        return self.database.commit(self.row.id, batch, TIMEOUT)

    def put(
        self, puts: Mapping[bytes, bytes] = _NO_ROWS, deletes: Iterable[bytes] = (), *, written_at: int = _A_TIME
    ) -> None:
        """Commit the next batch; fails if that does not succeed."""
        batch = self.batch(puts, deletes, written_at=written_at)
        row = self.commit(batch)
        assert row is not None, "the account is not there any more"
        assert row.sequence == batch.number, f"batch {batch.number} was not committed; the answer was {row}"
        self.row = row

    def get(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """What is stored under these keys; fails for one that comes twice."""
        return _by_key(self.database.get(self.row.id, sorted(keys), TIMEOUT))

    def everything(self) -> dict[bytes, bytes]:
        """All rows."""
        return rows_of(self.database, self.row.id)


class Copy(NamedTuple):
    """An account as it was at some time: what a backup holds of it."""

    row: AccountRow
    rows: dict[bytes, bytes]


def new_claim(
    *, new_id: int | None = None, incarnation: int | None = None, owner: str = "raw owner", since: int = _A_TIME
) -> TakeOver:
    """What a new owner brings; what is not given is drawn at random, as the core does it."""
    return TakeOver(new_id or _draw(), incarnation or _draw(), owner, since)


def batch_on(
    row: AccountRow,
    puts: Mapping[bytes, bytes] = _NO_ROWS,
    deletes: Iterable[bytes] = (),
    *,
    ahead: int = 1,
    written_at: int = _A_TIME,
) -> Batch:
    """A batch of the owner that this row names, in key order; `ahead` is 1 for the one after the last committed."""
    rows = [Row(*each) for each in sorted(puts.items())]
    return Batch(row.epoch, row.incarnation, row.sequence + ahead, rows, sorted(deletes), written_at)


def found(database: Database, account: Account = ALICE) -> AccountRow:
    """The account's row, which must be there."""
    row = database.find(account.user_id, account.device_id, TIMEOUT)
    assert row is not None, f"{account} is not there"
    return row


def rows_of(database: Database, account_id: int) -> dict[bytes, bytes]:
    """All rows of an account; fails for a key that comes twice."""
    return _by_key(database.ranges(account_id, [EVERYTHING], TIMEOUT))


def overwrite(
    database: Database, puts: Mapping[bytes, bytes] = _NO_ROWS, deletes: Iterable[bytes] = (), account: Account = ALICE
) -> None:
    """Change rows under an account's owner, whose next batch will find its number taken; its readers notice nothing."""
    row = found(database, account)
    batch = batch_on(row, puts, deletes)
    assert database.commit(row.id, batch, TIMEOUT) == batch.row_after(row)


def copy_of(database: Database, account: Account = ALICE) -> Copy:
    """The account as it is now."""
    row = found(database, account)
    return Copy(row, rows_of(database, row.id))


def put_back(database: Database, copy: Copy) -> None:
    """Make an account what it was when the copy was taken, as when a backup is put back."""
    row = copy.row
    here = database.find(row.user_id, row.device_id, TIMEOUT)
    if here is not None:
        database.delete(here.id, TIMEOUT)
    account = Account(row.user_id, row.device_id)
    claim = TakeOver(row.id, row.incarnation, row.owner, row.since)
    owners = [RawOwner(database, account, claim) for _ in range(row.epoch)]
    for _ in range(row.sequence - 1):
        owners[-1].put()
    if row.sequence:
        owners[-1].put(copy.rows, written_at=row.written_at)
    assert copy_of(database, account) == copy, "a copy could not be put back"


def _by_key(rows: Iterable[Row]) -> dict[bytes, bytes]:
    listed = list(rows)
    by_key = dict(listed)
    assert len(by_key) == len(listed), "a row came twice"
    return by_key


def _draw() -> int:
    return secrets.randbelow(2**63 - 1) + 1
