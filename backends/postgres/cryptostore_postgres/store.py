"""One account in a PostgreSQL database."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import psycopg

from cryptostore.changes import Changes
from cryptostore.errors import AccountNotFound, FencedOut
from cryptostore.interface import CryptoStore, Mode
from cryptostore.lifecycle import OpenFlag
from cryptostore.records import Key, Record, check_key, check_prefix, fields_of
from cryptostore.rows import read_rows
from cryptostore.sequence import Batch

from .accounts import AccountRow, Accounts, time_from_epoch
from .columns import COLUMNS
from .connections import Connection, Connections
from .statements import Statements, key_arrays, portions
from .transactions import transaction

R = TypeVar("R", bound=Record)
Row = tuple[Any, ...]

_PAGE: Final = 500

_COMMITTED_ALREADY: Final = "MC001"
_FENCED: Final = "MC002"
_NO_ACCOUNT: Final = "MC003"


class PostgresStore(CryptoStore):
    """One account's rows, always found by the account's id."""

    def __init__(
        self,
        connections: Connections,
        accounts: Accounts,
        statements: Statements,
        row: AccountRow,
        mode: Mode,
        deadline: float,
        backend_is_open: OpenFlag,
    ) -> None:
        super().__init__(row.account, mode, row.ownership, deadline, backend_is_open)
        self._connections = connections
        self._accounts = accounts
        self._statements = statements
        self._id = row.id

    def get(self, kind: type[R], keys: Iterable[Key]) -> dict[Key, R]:
        self._is_open.check()
        wanted = list(dict.fromkeys(check_key(kind, key) for key in keys))
        if not wanted:
            return {}
        rows = self._fetch(self._statements.get[kind], [*key_arrays(wanted), self._id])
        return {record.key: record for record in self._records(kind, rows)}

    def select(self, kind: type[R], prefixes: Iterable[Key]) -> dict[Key, list[R]]:
        self._is_open.check()
        wanted = list(dict.fromkeys(check_prefix(kind, prefix) for prefix in prefixes))
        if not wanted:
            return {}
        lengths = sorted({len(prefix) for prefix in wanted})
        parameters: list[Any] = []
        for length in lengths:
            positions = [position for position, prefix in enumerate(wanted) if len(prefix) == length]
            parameters += [positions, *key_arrays(wanted[position] for position in positions), self._id]
        rows: list[list[Row]] = [[] for _ in wanted]
        for position, *row in self._fetch(self._statements.select(kind, lengths), parameters):
            rows[position].append(tuple(row))
        return {prefix: list(self._records(kind, found)) for prefix, found in zip(wanted, rows, strict=True)}

    def scan(self, kind: type[R], prefix: Key = ()) -> Iterator[R]:
        self._is_open.check()
        return self._pages(kind, check_prefix(kind, prefix))

    def commit(self, batch: Batch, timeout: float) -> None:
        self._is_open.check()
        ends = self._connections.attempt_ends(timeout)
        self._connections.once(ends, lambda connection: self._commit_on(connection, batch, ends))

    def _commit_on(self, connection: Connection, batch: Batch, ends: float) -> None:
        try:
            with transaction(connection, ends):
                self._accounts.claim(connection, self._id, self.ownership.epoch, batch.number)
                self._put_and_delete(connection, batch.changes)
        except psycopg.errors.LockNotAvailable:
            # Perhaps an earlier attempt of ours, of which the server has only the beginning.
            self._accounts.end_stalled(connection, self.account, self.ownership.epoch)
            raise
        except psycopg.DatabaseError as error:
            if error.sqlstate == _COMMITTED_ALREADY:
                connection.rollback()
                self._confirm(connection, batch.number, ends)
            elif error.sqlstate == _FENCED:
                raise self._fenced(error) from error
            elif error.sqlstate == _NO_ACCOUNT:
                raise AccountNotFound.deleted(self.account) from error
            else:
                raise

    def _confirm(self, connection: Connection, number: int, ends: float) -> None:
        # The earlier COMMIT may have been seen by the primary alone. A later write that is replicated says that it is.
        with transaction(connection, ends):
            self._accounts.touch(connection, self._id, self.ownership.epoch, number)

    def _put_and_delete(self, connection: Connection, changes: Changes) -> None:
        for kind in changes.kinds():
            for number, arrays in enumerate(portions(kind, changes.puts(kind))):
                if number:
                    # An answer to wait for, or all of the batch would be in the driver's buffer, which ends at 2 GiB.
                    connection.execute("SELECT 1").fetchone()
                connection.execute(self._statements.upsert[kind], [self._id, *arrays])
            if keys := changes.deletes(kind):
                connection.execute(self._statements.delete[kind], [*key_arrays(keys), self._id])

    def _fenced(self, error: psycopg.DatabaseError) -> FencedOut:
        present = json.loads(error.diag.message_detail or "{}")
        return FencedOut.by(present["owner"], time_from_epoch(present["since"]), self.account)

    def _pages(self, kind: type[R], prefix: Key) -> Iterator[R]:
        shape = (kind, len(prefix))
        rows = self._fetch(self._statements.first_page[shape], [self._id, *prefix, _PAGE])
        while rows:
            yield from self._records(kind, rows)
            if len(rows) < _PAGE or not kind.key_fields:
                return
            self._is_open.check()
            last = dict(zip((field.name for field in fields_of(kind)), rows[-1], strict=True))
            after = [last[name] for name in kind.key_fields]
            rows = self._fetch(self._statements.next_page[shape], [self._id, *prefix, *after, _PAGE])

    def _fetch(self, statement: bytes, parameters: Sequence[Any]) -> list[Row]:
        def fetch(connection: Connection) -> list[Row]:
            return connection.execute(statement, parameters, binary=True).fetchall()

        return self._connections.read(fetch)

    def _records(self, kind: type[R], rows: Iterable[Row]) -> Iterator[R]:
        readers = [COLUMNS[field.type].read for field in fields_of(kind)]

        def decode(row: Row) -> R:
            return kind(*[read(value) for read, value in zip(readers, row, strict=True)])

        return read_rows(self.account, kind, rows, decode)
