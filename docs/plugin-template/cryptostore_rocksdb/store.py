"""One account in a RocksDB database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

from rocksdict import WriteBatch

from cryptostore import (
    Account,
    AccountNotFound,
    Batch,
    Changes,
    CryptoStore,
    FencedOut,
    Key,
    Mode,
    Record,
)
from cryptostore.lifecycle import OpenFlag
from cryptostore.records import check_key, check_prefix
from cryptostore.rows import read_rows

from . import accounts, values
from .accounts import AccountRow
from .database import Database
from .keys import account_key, end_of, record_key

R = TypeVar("R", bound=Record)

#: Records of a scan that are in memory at a time.
_PAGE: Final = 500


class RocksDBStore(CryptoStore):
    """The interface's methods, each inside one use of the database."""

    def __init__(
        self,
        database: Database,
        row: AccountRow,
        account: Account,
        mode: Mode,
        deadline: float,
        backend_is_open: OpenFlag,
    ) -> None:
        super().__init__(account, mode, row.ownership, deadline, backend_is_open)
        self._database = database
        self._id = row.id
        self._deadline = deadline

    def get(self, kind: type[R], keys: Iterable[Key]) -> dict[Key, R]:
        self._is_open.check()
        wanted = {check_key(kind, key) for key in keys}
        if not wanted:
            return {}
        with self._database.using(self._deadline) as opened:
            found = [opened.get(record_key(self._id, kind, key)) for key in wanted]
        records = self._records(kind, (value for value in found if value is not None))
        return {record.key: record for record in records}

    def select(self, kind: type[R], prefixes: Iterable[Key]) -> dict[Key, list[R]]:
        self._is_open.check()
        wanted = [check_prefix(kind, prefix) for prefix in prefixes]
        if not wanted:
            return {}
        with self._database.using(self._deadline) as opened:
            found = {prefix: opened.range(*self._range(kind, prefix)) for prefix in wanted}
        return {prefix: list(self._records(kind, (value for _, value in rows))) for prefix, rows in found.items()}

    def scan(self, kind: type[R], prefix: Key = ()) -> Iterator[R]:
        self._is_open.check()
        return self._scan(kind, check_prefix(kind, prefix))

    def commit(self, batch: Batch, timeout: float) -> None:
        self._is_open.check()
        with self._database.using(timeout) as opened:
            row = accounts.look_up(opened, self.account)
            if self._expects(row, batch):
                advanced = AccountRow(self._id, self.ownership).advanced(batch.number)
                opened.commit(self._write_batch(batch.changes), account_key(self.account), advanced.encode())

    def _expects(self, row: AccountRow | None, batch: Batch) -> bool:
        """Whether the batch is the next one; False for one that was committed. Raises what `commit` raises."""
        if row is None or row.id != self._id:
            raise AccountNotFound.deleted(self.account)
        now = row.ownership
        if now.epoch == self.ownership.epoch and batch.number in (now.sequence, now.sequence + 1):
            return batch.number == now.sequence + 1
        raise FencedOut.by(now.owner, now.since, self.account)

    def _write_batch(self, changes: Changes) -> WriteBatch:
        batch = WriteBatch(raw_mode=True)
        for kind in changes.kinds():
            for record in changes.puts(kind):
                batch.put(record_key(self._id, kind, record.key), values.encode(record))
            for key in changes.deletes(kind):
                batch.delete(record_key(self._id, kind, key))
        return batch

    def _scan(self, kind: type[R], prefix: Key) -> Iterator[R]:
        begin, end = self._range(kind, prefix)
        while True:
            self._is_open.check()
            with self._database.using(self._deadline) as opened:
                rows = opened.range(begin, end, _PAGE)
            yield from self._records(kind, (value for _, value in rows))
            if len(rows) < _PAGE:
                return
            # The first key after the last row's, whether or not that row could be read.
            begin = rows[-1][0] + b"\0"

    def _range(self, kind: type[Record], prefix: Key) -> tuple[bytes, bytes]:
        begin = record_key(self._id, kind, prefix)
        return begin, end_of(begin)

    def _records(self, kind: type[R], found: Iterable[bytes]) -> Iterator[R]:
        return read_rows(self.account, kind, found, lambda value: values.decode(kind, value))
