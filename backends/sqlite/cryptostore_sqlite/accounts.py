"""The table of accounts: who owns which, and how far each has come."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from sqlite3 import Connection
from typing import Final

from cryptostore import Account, AccountNotFound, InvalidRecord, Ownership

from .columns import from_time_column, to_time_column

_TAKE_OVER: Final = """
    INSERT INTO account (user_id, device_id, epoch, sequence, owner, since) VALUES (?, ?, 1, 0, ?, ?)
    ON CONFLICT (user_id, device_id)
    DO UPDATE SET epoch = epoch + 1, owner = excluded.owner, since = excluded.since
    RETURNING id, epoch, sequence, owner, since
"""
_FIND: Final = "SELECT id, epoch, sequence, owner, since FROM account WHERE user_id = ? AND device_id = ?"
_OWNERSHIP: Final = "SELECT epoch, sequence, owner, since FROM account WHERE id = ?"
_ALL: Final = "SELECT user_id, device_id, epoch, sequence, owner, since FROM account ORDER BY user_id, device_id"
_ADVANCE: Final = "UPDATE account SET sequence = ? WHERE id = ?"
_DELETE: Final = "DELETE FROM account WHERE user_id = ? AND device_id = ?"

_log: Final = logging.getLogger(__name__)


def take_over(connection: Connection, account: Account, owner: str) -> tuple[int, Ownership]:
    """Raise the account's epoch, creating the account if need be. Returns its id, too."""
    since = to_time_column(datetime.now(UTC))
    # Every row must be fetched, or the statement is still running when the transaction ends.
    [(account_id, *columns)] = connection.execute(
        _TAKE_OVER, (account.user_id, account.device_id, owner, since)
    ).fetchall()
    return account_id, _ownership(*columns)


def find(connection: Connection, account: Account) -> tuple[int, Ownership]:
    """The account's id, and who owns it. Raises AccountNotFound."""
    row = connection.execute(_FIND, (account.user_id, account.device_id)).fetchone()
    if row is None:
        raise AccountNotFound.missing(account)
    account_id, *columns = row
    return account_id, _ownership(*columns)


def current_ownership(connection: Connection, account_id: int) -> Ownership | None:
    """Who owns the account now; None if it was deleted."""
    row = connection.execute(_OWNERSHIP, (account_id,)).fetchone()
    return None if row is None else _ownership(*row)


def every(connection: Connection) -> Iterator[tuple[Account, Ownership]]:
    """All accounts in the order of user id and device id; a row that cannot be read is reported and left out."""
    for user_id, device_id, *columns in connection.execute(_ALL):
        try:
            yield Account(user_id.decode(), device_id.decode()), _ownership(*columns)
        except (InvalidRecord, ValueError) as error:
            _log.warning("skipped an unreadable account (%s)", type(error).__name__)


def advance(connection: Connection, account_id: int, sequence: int) -> None:
    """Store the number of the batch that is being committed."""
    connection.execute(_ADVANCE, (sequence, account_id))


def delete(connection: Connection, account: Account) -> None:
    """Delete the account; the tables of records follow by their foreign keys. Raises AccountNotFound."""
    if connection.execute(_DELETE, (account.user_id, account.device_id)).rowcount == 0:
        raise AccountNotFound.missing(account)


def _ownership(epoch: int, sequence: int, owner: bytes, since: int) -> Ownership:
    return Ownership(epoch, sequence, owner.decode(errors="replace"), from_time_column(since))
