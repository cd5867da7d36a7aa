"""The rows of accounts: who owns which, and how far each has come."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from cryptostore import Account, AccountNotFound, InvalidRecord, Ownership, UnreadableRecord

from .database import OpenDatabase, Row
from .keys import account_in, account_key

_ID_BYTES: Final = 16

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class AccountRow:
    """An account in the database. Its `id` is never used again: an account that is made anew gets another."""

    id: bytes
    ownership: Ownership

    def encode(self) -> bytes:
        """The row as RocksDB keeps it."""
        now = self.ownership
        fields = [self.id.hex(), now.epoch, now.sequence, now.owner, now.since.isoformat()]
        return json.dumps(fields).encode()

    @classmethod
    def decode(cls, value: bytes) -> AccountRow:
        """Raises ValueError or TypeError for a damaged row."""
        account_id, epoch, sequence, owner, since = json.loads(value)
        return cls(bytes.fromhex(account_id), Ownership(epoch, sequence, owner, datetime.fromisoformat(since)))

    def taken_over(self, owner: str) -> AccountRow:
        """The row in its next epoch."""
        return replace(
            self,
            ownership=Ownership(self.ownership.epoch + 1, self.ownership.sequence, owner, datetime.now(UTC)),
        )

    def advanced(self, sequence: int) -> AccountRow:
        """The row after the batch with this number."""
        return replace(self, ownership=replace(self.ownership, sequence=sequence))


def new_row() -> AccountRow:
    """The row of an account that nobody owned yet."""
    return AccountRow(secrets.token_bytes(_ID_BYTES), Ownership(0, 0, "", datetime.now(UTC)))


def look_up(opened: OpenDatabase, account: Account) -> AccountRow | None:
    """The account's row. Raises UnreadableRecord: taken for absent, the account would be made anew."""
    value = opened.get(account_key(account))
    try:
        return None if value is None else AccountRow.decode(value)
    except (ValueError, TypeError):
        raise UnreadableRecord(
            f"the row of {account} is damaged in the database and was left as it is; restore it from a backup"
        ) from None


def find(opened: OpenDatabase, account: Account) -> AccountRow:
    """The account's row. Raises AccountNotFound, UnreadableRecord."""
    row = look_up(opened, account)
    if row is None:
        raise AccountNotFound.missing(account)
    return row


def every(rows: Iterable[Row]) -> Iterator[tuple[Account, Ownership]]:
    """All accounts, in the order of their rows; one that cannot be read is reported and left out."""
    for key, value in rows:
        try:
            yield account_in(key), AccountRow.decode(value).ownership
        except (InvalidRecord, ValueError, TypeError) as error:
            _log.warning("skipped an unreadable account (%s)", type(error).__name__)
