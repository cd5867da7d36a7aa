"""One account in a SQLite database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from sqlite3 import Connection
from typing import Final, TypeVar

from cryptostore import (
    Account,
    AccountNotFound,
    Batch,
    Changes,
    CryptoStore,
    FencedOut,
    Key,
    Mode,
    Ownership,
    Record,
)
from cryptostore.records import check_key, check_prefix
from cryptostore.rows import read_rows

from . import accounts, statements
from .columns import Row, key_columns, row_decoder, row_encoder
from .connections import Connections

R = TypeVar("R", bound=Record)

#: Rows of a scan that are in memory at a time.
_PAGE: Final = 500


class SQLiteStore(CryptoStore):
    """The interface's methods, each in one transaction."""

    def __init__(
        self,
        connections: Connections,
        account_id: int,
        account: Account,
        mode: Mode,
        ownership: Ownership,
        deadline: float,
    ) -> None:
        super().__init__(account, mode, ownership, deadline, connections.is_open)
        self._connections = connections
        self._id = account_id

    def get(self, kind: type[R], keys: Iterable[Key]) -> dict[Key, R]:
        self._is_open.check()
        wanted = {check_key(kind, key) for key in keys}
        if not wanted:
            return {}
        with self._connections.reading() as connection:
            rows = self._matches(connection, kind, wanted)
        return {record.key: record for record in self._records(kind, rows)}

    def select(self, kind: type[R], prefixes: Iterable[Key]) -> dict[Key, list[R]]:
        self._is_open.check()
        found: dict[Key, list[R]] = {check_prefix(kind, prefix): [] for prefix in prefixes}
        if not found:
            return {}
        with self._connections.reading() as connection:
            rows = {
                length: self._matches(connection, kind, (prefix for prefix in found if len(prefix) == length))
                for length in {len(prefix) for prefix in found}
            }
        for length, matches in rows.items():
            for record in self._records(kind, matches):
                found[record.key[:length]].append(record)
        return found

    def scan(self, kind: type[R], prefix: Key = ()) -> Iterator[R]:
        self._is_open.check()
        return self._scan(kind, check_prefix(kind, prefix))

    def commit(self, batch: Batch, timeout: float) -> None:
        self._is_open.check()
        erases = any(batch.changes.deletes(kind) for kind in batch.changes.kinds())
        with self._connections.writing(timeout, erases=erases) as connection:
            if self._expects(connection, batch):
                self._put_and_delete(connection, batch.changes)
                accounts.advance(connection, self._id, batch.number)

    def _expects(self, connection: Connection, batch: Batch) -> bool:
        """Whether the batch is the next one; False for one that was committed. Raises what `commit` raises."""
        now = accounts.current_ownership(connection, self._id)
        if now is None:
            raise AccountNotFound.deleted(self.account)
        if now.epoch == self.ownership.epoch and batch.number in (now.sequence, now.sequence + 1):
            return batch.number == now.sequence + 1
        raise FencedOut.by(now.owner, now.since, self.account)

    def _put_and_delete(self, connection: Connection, changes: Changes) -> None:
        for kind in changes.kinds():
            encode = row_encoder(kind)
            connection.executemany(statements.put(kind), (encode(self._id, record) for record in changes.puts(kind)))
            connection.executemany(statements.delete(kind), ((self._id, *key) for key in changes.deletes(kind)))

    def _matches(self, connection: Connection, kind: type[Record], prefixes: Iterable[Key]) -> list[Row]:
        """The rows under prefixes that all have the same length."""
        given = list(prefixes)
        sql = statements.select(kind, len(given[0]))
        return connection.execute(sql, (statements.as_json(given), self._id)).fetchall()

    def _scan(self, kind: type[R], prefix: Key) -> Iterator[R]:
        last_key: Row = ()
        while True:
            self._is_open.check()
            sql = statements.page(kind, len(prefix), first=not last_key)
            with self._connections.reading() as connection:
                rows = connection.execute(sql, (self._id, *prefix, *last_key, _PAGE)).fetchall()
            yield from self._records(kind, rows)
            if len(rows) < _PAGE:
                return
            # From the row and not from its record: the last row of a page may be unreadable.
            last_key = key_columns(kind, rows[-1])[len(prefix) :]

    def _records(self, kind: type[R], rows: Iterable[Row]) -> Iterator[R]:
        return read_rows(self.account, kind, rows, row_decoder(kind))
