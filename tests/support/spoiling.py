"""Rows that cannot be read any more, as damage leaves them, or a writer without the pickle key."""

from __future__ import annotations

from cryptostore import Account, Mode, Record, Row, open_backend
from raw_databases import commit, take_over


def stored_rows(url: str, account: Account, kind: type[Record]) -> list[Row]:
    """The stored rows of one kind, sealed as they are."""
    with open_backend(url) as backend, backend.open_store(account, Mode.READ) as store:
        return [row for row in store.stored_rows() if row.key[0] == kind.kind_number]


def put_rows(url: str, account: Account, *rows: Row) -> None:
    """Write rows as one can who has the database and no pickle key. The account's owner is fenced out."""
    with open_backend(url) as backend:
        taken = take_over(backend.database, account.user_id, account.device_id)
        commit(backend.database, taken, dict(rows))


def spoil(url: str, account: Account, kind: type[Record]) -> list[Row]:
    """Damage every row of a kind. Returns them as they are now."""
    rows = [Row(row.key, row.value[:-1] + bytes([row.value[-1] ^ 1])) for row in stored_rows(url, account, kind)]
    assert rows
    put_rows(url, account, *rows)
    return rows
