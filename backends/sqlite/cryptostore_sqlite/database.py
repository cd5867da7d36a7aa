"""One SQLite database: the interface's methods, each in one transaction."""

from __future__ import annotations

import os
import shlex
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final

from cryptostore import AccountRow, Batch, Database, Health, Range, Row, Schema, SchemaError, TakeOver
from cryptostore.store.interface import MAX_KEY_BYTES

from . import schema
from .connections import Connections

# Files are edited by hand, and foreign keys would be each connection's to ask for. Epoch 0 is no owner's: it says that
# the ownership is missing.
_NAMED: Final = """
    SELECT id, user_id, device_id, ifnull(epoch, 0), ifnull(incarnation, 0), ifnull(sequence, 0), ifnull(owner, ''),
        ifnull(since, 0), ifnull(written_at, 0)
    FROM account LEFT JOIN ownership ON account_id = id
"""
_BY_NAME: Final = f"{_NAMED} WHERE user_id = ? AND device_id = ?"
_BY_ID: Final = f"{_NAMED} WHERE id = ?"
_NAMELESS: Final = """
    SELECT account_id, '', '', epoch, incarnation, sequence, owner, since, written_at
    FROM ownership WHERE account_id NOT IN (SELECT id FROM account)
"""
_ACCOUNTS: Final = f"{_NAMED} UNION ALL {_NAMELESS}"

_ID: Final = "SELECT id FROM account WHERE user_id = ? AND device_id = ?"
_NEW_ACCOUNT: Final = "INSERT INTO account (id, user_id, device_id) VALUES (?, ?, ?)"
_NEW_OWNERSHIP: Final = """
    INSERT INTO ownership (account_id, epoch, incarnation, sequence, owner, since, written_at)
    VALUES (?, 0, 0, 0, '', 0, 0)
"""
_TAKE_OVER: Final = "UPDATE ownership SET epoch = epoch + 1, incarnation = ?, owner = ?, since = ? WHERE account_id = ?"
_ADVANCE: Final = "UPDATE ownership SET sequence = ?, written_at = ? WHERE account_id = ?"

# SQLite checks the types of STRICT tables as it writes, not as it reads: a damaged file may hold anything.
_GET: Final = "SELECT ifnull(CAST(value AS BLOB), x'') FROM record WHERE account_id = ? AND key = ?"
_RANGE: Final = """
    SELECT key, ifnull(CAST(value AS BLOB), x'') FROM record
    WHERE account_id = ? AND key >= ? AND key < ? ORDER BY key LIMIT ?
"""
_PUT: Final = """
    INSERT INTO record (account_id, key, value) VALUES (?, ?, ?)
    ON CONFLICT (account_id, key) DO UPDATE SET value = excluded.value
"""
_DELETE: Final = "DELETE FROM record WHERE account_id = ? AND key = ?"

_DELETE_ACCOUNT: Final = (
    "DELETE FROM ownership WHERE account_id = ?",
    "DELETE FROM record WHERE account_id = ?",
    "DELETE FROM account WHERE id = ?",
)

#: What people run, where half of an account is missing.
_REMOVE_UNOWNED: Final = "DELETE FROM record WHERE account_id = {0}; DELETE FROM account WHERE id = {0}"
_REMOVE_NAMELESS: Final = (
    "DELETE FROM record WHERE account_id NOT IN (SELECT id FROM account); "
    "DELETE FROM ownership WHERE account_id NOT IN (SELECT id FROM account)"
)

_BEYOND_ALL_KEYS: Final = b"\xff" * (MAX_KEY_BYTES + 1)
_NO_LIMIT: Final = -1

#: After each of an account's first batches, the database file is whole by itself: the Olm account is in one of them,
#: and in a copy that lacks the -wal it must not look as if it had never been.
_FIRST_BATCHES: Final = 8


class SQLiteDatabase(Database):
    """A handle on a database file."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def take_over(self, user_id: str, device_id: str, claim: TakeOver, timeout: float) -> AccountRow:
        with self._connections.writing(timeout, opening=True, checkpoint=True) as connection:
            account_id = _find_or_insert(connection, user_id, device_id, claim.new_id)
            connection.execute(_TAKE_OVER, (claim.incarnation, claim.owner, claim.since, account_id))
            (row,) = _account_rows(connection, _BY_ID, account_id)
            return _whole(connection, row)

    def find(self, user_id: str, device_id: str, timeout: float) -> AccountRow | None:
        with self._connections.reading(timeout) as connection:
            row = _account_row(connection, _BY_NAME, user_id, device_id)
            if row is None:
                _refuse_nameless(connection)
            return row

    def accounts(self, timeout: float) -> list[AccountRow]:
        with self._connections.reading(timeout) as connection:
            return list(_account_rows(connection, _ACCOUNTS))

    def delete(self, account_id: int, timeout: float) -> None:
        with self._connections.writing(timeout, checkpoint=True) as connection:
            for statement in _DELETE_ACCOUNT:
                connection.execute(statement, (account_id,))

    def get(self, account_id: int, keys: Sequence[bytes], timeout: float) -> list[Row]:
        # A statement for each key: there is no network to cross, and SQLite limits the parameters of one statement.
        with self._connections.reading(timeout) as connection:
            return [Row(key, value) for key in keys for (value,) in connection.execute(_GET, (account_id, key))]

    def ranges(self, account_id: int, ranges: Sequence[Range], timeout: float) -> list[Row]:
        with self._connections.reading(timeout) as connection:
            return [row for each in ranges for row in _rows(connection, account_id, each, _NO_LIMIT)]

    def page(self, account_id: int, within: Range, size: int, timeout: float) -> list[Row]:
        with self._connections.reading(timeout) as connection:
            return list(_rows(connection, account_id, within, size))

    def commit(self, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        checkpoint = bool(batch.deletes) or batch.number <= _FIRST_BATCHES
        with self._connections.writing(timeout, checkpoint=checkpoint) as connection:
            row = _account_row(connection, _BY_ID, account_id)
            if row is None or not batch.follows(row):
                return row
            connection.executemany(_PUT, ((account_id, key, value) for key, value in batch.puts))
            connection.executemany(_DELETE, ((account_id, key) for key in batch.deletes))
            connection.execute(_ADVANCE, (batch.number, batch.written_at, account_id))
            return batch.row_after(row)

    def health(self, timeout: float) -> Health:
        return Health(f"SQLite {sqlite3.sqlite_version}", self._connections.is_writable(timeout))

    def schema(self, timeout: float) -> Schema:
        with self._connections.reading(timeout) as connection:
            return schema.current(connection)

    def close(self) -> None:
        self._connections.close()


def _find_or_insert(connection: sqlite3.Connection, user_id: str, device_id: str, new_id: int) -> int:
    found = connection.execute(_ID, (user_id, device_id)).fetchall()
    if found:
        return int(found[0][0])
    connection.execute(_NEW_ACCOUNT, (new_id, user_id, device_id))
    connection.execute(_NEW_OWNERSHIP, (new_id,))
    return new_id


def _account_row(connection: sqlite3.Connection, statement: str, *parameters: str | int) -> AccountRow | None:
    """Raises SchemaError for an account without its ownership."""
    row = next(_account_rows(connection, statement, *parameters), None)
    return None if row is None else _whole(connection, row)


def _account_rows(connection: sqlite3.Connection, statement: str, *parameters: str | int) -> Iterator[AccountRow]:
    rows = connection.execute(statement, parameters).fetchall()
    for account_id, user_id, device_id, epoch, incarnation, sequence, owner, since, written_at in rows:
        # No account's name may hold a lone surrogate, so the core reports the damaged row. An owner's is only shown.
        yield AccountRow(
            account_id,
            user_id.decode(errors="surrogateescape"),
            device_id.decode(errors="surrogateescape"),
            epoch,
            incarnation,
            sequence,
            owner.decode(errors="replace"),
            since,
            written_at,
        )


def _whole(connection: sqlite3.Connection, row: AccountRow) -> AccountRow:
    """The row, if it is whole. Raises SchemaError for an account without its ownership."""
    if row.epoch:
        return row
    raise SchemaError(
        f"the ownership of {row.user_id} {row.device_id} is missing in the database, so its last batch is unknown; "
        "restore a backup of the database, or restore or copy the account after removing what is left of it with: "
        f"{_command(connection, _REMOVE_UNOWNED.format(row.id))}"
    )


def _refuse_nameless(connection: sqlite3.Connection) -> None:
    """Raises SchemaError for an ownership without its account: it may be that which is looked for."""
    if connection.execute(f"{_NAMELESS} LIMIT 1").fetchone() is None:
        return
    raise SchemaError(
        "the database holds the ownership of an account that is missing, so none can begin anew; restore a backup of "
        "the database, or restore or copy the account after removing what is left of it with: "
        f"{_command(connection, _REMOVE_NAMELESS)}"
    )


def _command(connection: sqlite3.Connection, statement: str) -> str:
    _, _, path = connection.execute("PRAGMA database_list").fetchone()
    return shlex.join(["sqlite3", os.fsdecode(path), statement])


def _rows(connection: sqlite3.Connection, account_id: int, within: Range, limit: int) -> Iterator[Row]:
    end = _BEYOND_ALL_KEYS if within.end is None else within.end
    return map(Row._make, connection.execute(_RANGE, (account_id, within.start, end, limit)))
