"""What the tests of our backends give a `Database` directly: claims and batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count
from typing import Final

from cryptostore import AccountRow, Batch, Database, Row, TakeOver

TIMEOUT: Final = 5.0

_ids: Final = count(1)


def new_claim(owner: str = "a test") -> TakeOver:
    """A claim with an id and an incarnation that no other claim has."""
    number = next(_ids)
    return TakeOver(new_id=2**62 + number, incarnation=2**63 - number, owner=owner, since=1_767_323_045_678_901)


def take_over(database: Database, user_id: str = "@alice:example.org", device_id: str = "ALICEDEVICE") -> AccountRow:
    """Take an account over."""
    return database.take_over(user_id, device_id, new_claim(), TIMEOUT)


def next_batch(row: AccountRow, puts: Mapping[bytes, bytes] | None = None, deletes: Iterable[bytes] = ()) -> Batch:
    """The batch that the owner of this row would commit next."""
    rows = [Row(key, value) for key, value in sorted((puts or {}).items())]
    return Batch(row.epoch, row.incarnation, row.sequence + 1, rows, sorted(deletes))


def commit(
    database: Database, row: AccountRow, puts: Mapping[bytes, bytes] | None = None, deletes: Iterable[bytes] = ()
) -> AccountRow:
    """Commit the owner's next batch, and return the account's row after it."""
    batch = next_batch(row, puts, deletes)
    committed = database.commit(row.id, batch, TIMEOUT)
    assert committed == batch.row_after(row)
    return committed
