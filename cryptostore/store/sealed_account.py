"""One account as it is stored: sealed rows, which need no pickle key to be moved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final, final

from cryptostore.errors import ReadOnlyStore
from cryptostore.records.record import Account

from .attempts import Attempts
from .interface import AccountRow, Batch, Database, Range, Row
from .keys import range_of, successor
from .lifecycle import OpenFlag
from .marks import MARK_KEY, Mark, decode_mark
from .ordering import checked_rows, only_wanted
from .ownership import claim_of, confirm
from .sequence import BatchSequence, SealedRows

#: What is in memory of an account at a time: rows, and about as many bytes of values.
_PAGE_ROWS: Final = 2_000
_PAGE_BYTES: Final = 4 * 1024 * 1024
#: Before it is known how large the rows are, and how much larger the next page may be.
_FIRST_PAGE_ROWS: Final = 100
_GROWTH: Final = 4


@final
class SealedAccount:
    """One account's rows in one database, for commands that move them, in one thread.

    Each call is tried again until the deadline, and raises as the methods of `CryptoStore` do.
    """

    def __init__(self, database: Database, account: Account, deadline: float, owner: str, is_open: OpenFlag) -> None:
        self.account: Final = account
        self._database: Final = database
        self._deadline: Final = deadline
        self._owner: Final = owner
        self._is_open: Final = is_open
        self._id = 0
        self._sequence: BatchSequence[SealedRows] | None = None

    def find(self) -> AccountRow | None:
        """The account's row as it is now, or None. What is read later is this account's."""
        row = self._attempts().run(partial(self._database.find, self.account.user_id, self.account.device_id))
        self._id = 0 if row is None else row.id
        return row

    def take_over(self) -> AccountRow:
        """Become the account's owner, and make it if it is not there. From then on it can be written."""
        claim = claim_of(self._owner)
        attempts = self._attempts()
        row = attempts.run(
            lambda timeout: self._database.take_over(self.account.user_id, self.account.device_id, claim, timeout)
        )
        self._id = row.id

        def seal(number: int, changes: SealedRows) -> Batch:
            return changes.batch(row.epoch, row.incarnation, number)

        self._sequence = BatchSequence(row.sequence, self._deadline, seal, self._commit)
        return row

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The values under these keys, which are in order."""
        rows = self._attempts().run(partial(self._database.get, self._id, keys))
        return dict(only_wanted(keys, rows))

    def mark(self) -> Mark | None:
        """What the account's mark says. Raises UnreadableRecord, SchemaTooNew."""
        value = self.get([MARK_KEY]).get(MARK_KEY)
        return None if value is None else decode_mark(self.account, value)

    def pages(self, after: bytes = b"") -> Iterator[list[Row]]:
        """The rows with keys above this one, in key order: up to 2,000, or about 4 MiB, at a time."""
        within, size = range_of(b""), _FIRST_PAGE_ROWS
        if after:
            within = Range(successor(after), within.end)
        while rows := self._page(within, size):
            yield rows
            if len(rows) < size:
                return
            within = Range(successor(rows[-1].key), within.end)
            average = sum([len(row.value) for row in rows]) // len(rows) + 1
            size = max(1, min(_PAGE_ROWS, _GROWTH * size, _PAGE_BYTES // average))

    def snapshot(self) -> list[Row]:
        """All rows as they are at one moment, in key order, in memory."""
        everything = [range_of(b"")]
        rows = self._attempts().run(partial(self._database.ranges, self._id, everything))
        return list(checked_rows(rows, everything))

    def write(self, puts: Sequence[Row], deletes: Sequence[bytes] = ()) -> None:
        """Make rows durable in one batch, all or nothing. Raises as `CryptoStore.apply` does."""
        if self._sequence is None:
            raise ReadOnlyStore(f"{self.account} was not taken over; take it over to write")
        self._sequence.apply(SealedRows(tuple(puts), tuple(deletes)))

    def delete(self) -> None:
        """Delete the account that was found, with all its rows."""
        self._attempts().run(partial(self._database.delete, self._id))

    def _page(self, within: Range, size: int) -> list[Row]:
        rows = self._attempts().run(partial(self._database.page, self._id, within, size))
        return list(checked_rows(rows, [within]))

    def _attempts(self) -> Attempts:
        self._is_open.check()
        return Attempts(self._deadline)

    def _commit(self, batch: Batch, timeout: float) -> None:
        confirm(self.account, batch, self._database.commit(self._id, batch, timeout))
