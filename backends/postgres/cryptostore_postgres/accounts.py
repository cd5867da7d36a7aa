"""The accounts table: who owns which account."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from psycopg.errors import LockNotAvailable
from psycopg.sql import SQL, Identifier

from cryptostore.errors import AccountNotFound, InvalidRecord
from cryptostore.interface import Ownership
from cryptostore.records import Account

from .columns import time_of
from .connections import Connection
from .transactions import transaction

_ANY_EPOCH: Final = 2**63 - 1
_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_log: Final = logging.getLogger(__name__)


class AccountRow(NamedTuple):
    """One account, its id in every other table, and who owns it."""

    id: int
    account: Account
    ownership: Ownership


class Accounts:
    """The statements on accounts."""

    def __init__(self, schema: str) -> None:
        table, claim = Identifier(schema, "account"), Identifier(schema, "claim_batch")
        self._all = SQL(
            "SELECT id, user_id, device_id, epoch, sequence, owner, since FROM {} ORDER BY user_id, device_id"
        ).format(table)
        self._find = SQL(
            "SELECT id, user_id, device_id, epoch, sequence, owner, since FROM {} WHERE user_id = %s AND device_id = %s"
        ).format(table)
        self._take_over = SQL(
            "INSERT INTO {} AS present (user_id, device_id, epoch, sequence, owner, since) "
            "VALUES (%s, %s, 1, 0, %s, clock_timestamp()) "
            "ON CONFLICT (user_id, device_id) DO UPDATE "
            "SET epoch = present.epoch + 1, owner = excluded.owner, since = excluded.since "
            "RETURNING id, user_id, device_id, epoch, sequence, owner, since"
        ).format(table)
        self._claim = SQL("SELECT {}(%s::bigint, %s::bigint, %s::bigint)").format(claim)
        self._touch = SQL("UPDATE {} SET sequence = sequence WHERE id = %s AND epoch = %s AND sequence = %s").format(
            table
        )
        # Half a batch that a silent network left at the server holds the row's lock, maybe for hours. Its transaction
        # is the row's xmax; one that is not waiting for its client is at work and will end by itself.
        self._end_stalled = SQL(
            "SELECT pg_terminate_backend(activity.pid) FROM {} AS wanted "
            "JOIN pg_catalog.pg_locks AS held ON held.locktype = 'transactionid' AND held.transactionid = wanted.xmax "
            "JOIN pg_catalog.pg_stat_activity AS activity ON activity.pid = held.pid "
            "WHERE wanted.user_id = %s AND wanted.device_id = %s AND wanted.epoch <= %s AND held.granted "
            "AND activity.usename = current_user AND activity.wait_event = 'ClientRead'"
        ).format(table)
        self._delete = SQL("DELETE FROM {} WHERE user_id = %s AND device_id = %s").format(table)

    def all(self, connection: Connection) -> list[AccountRow]:
        """Every account, in order; a row that cannot be read is reported and left out."""
        return list(_readable(connection.execute(self._all, binary=True).fetchall()))

    def find(self, connection: Connection, account: Account) -> AccountRow:
        """One account. Raises AccountNotFound."""
        found = connection.execute(self._find, [account.user_id, account.device_id], binary=True).fetchone()
        if found is None:
            raise AccountNotFound.missing(account)
        return _row(found)

    def take_over(self, connection: Connection, account: Account, owner: str, ends: float) -> AccountRow:
        """Raise the account's epoch, creating the account if need be, and commit that."""
        try:
            with transaction(connection, ends):
                answer = connection.execute(self._take_over, [account.user_id, account.device_id, owner], binary=True)
        except LockNotAvailable:
            self.end_stalled(connection, account)
            raise
        return _row(answer.fetchall()[0])

    def claim(self, connection: Connection, account_id: int, epoch: int, number: int) -> None:
        """Take a batch's number inside the caller's transaction, or make the server skip the rest of it."""
        connection.execute(self._claim, [account_id, epoch, number])

    def touch(self, connection: Connection, account_id: int, epoch: int, number: int) -> None:
        """Write the account's row as it is."""
        connection.execute(self._touch, [account_id, epoch, number])

    def end_stalled(self, connection: Connection, account: Account, epoch: int = _ANY_EPOCH) -> None:
        """End this role's transactions, of owners up to `epoch`, that hold the account while their client is silent."""
        connection.rollback()
        connection.execute(self._end_stalled, [account.user_id, account.device_id, epoch])

    def delete(self, connection: Connection, account: Account, ends: float) -> bool:
        """Delete the account with all its rows; False where it is not there."""
        with transaction(connection, ends):
            answer = connection.execute(self._delete, [account.user_id, account.device_id])
        return answer.rowcount > 0


def time_from_epoch(microseconds: int) -> datetime:
    """A time that the server gave as microseconds since 1970."""
    return _UNIX_EPOCH + timedelta(microseconds=microseconds)


def _readable(rows: Iterable[tuple[Any, ...]]) -> Iterator[AccountRow]:
    for values in rows:
        try:
            yield _row(values)
        except (InvalidRecord, ValueError) as error:
            _log.warning("skipped an unreadable account (%s)", type(error).__name__)


def _row(values: tuple[Any, ...]) -> AccountRow:
    account_id, user_id, device_id, epoch, sequence, owner, since = values
    return AccountRow(account_id, Account(user_id, device_id), Ownership(epoch, sequence, owner, time_of(since)))
