"""One SQLite database with any number of accounts."""

from __future__ import annotations

import sqlite3

from cryptostore import Account, Backend, Health, Mode, Ownership, Schema
from cryptostore.urls import CommonOptions

from . import accounts, schema
from .connections import Connections
from .store import SQLiteStore


class SQLiteBackend(Backend):
    """A handle on a database file."""

    def __init__(self, connections: Connections, common: CommonOptions) -> None:
        self._connections = connections
        self._common = common

    def open_store(self, account: Account, mode: Mode = Mode.OWN) -> SQLiteStore:
        if mode is Mode.OWN:
            with self._connections.writing(self._common.deadline, opening=True) as connection:
                account_id, ownership = accounts.take_over(connection, account, self._common.owner)
        else:
            with self._connections.reading() as connection:
                account_id, ownership = accounts.find(connection, account)
        return SQLiteStore(self._connections, account_id, account, mode, ownership, self._common.deadline)

    def accounts(self) -> dict[Account, Ownership]:
        with self._connections.reading() as connection:
            return dict(accounts.every(connection))

    def delete_account(self, account: Account) -> None:
        with self._connections.writing(self._common.deadline, erases=True) as connection:
            accounts.delete(connection, account)

    def health(self) -> Health:
        return Health(f"SQLite {sqlite3.sqlite_version}", self._connections.is_writable())

    def schema(self) -> Schema:
        with self._connections.reading() as connection:
            return schema.current(connection)

    def close(self) -> None:
        self._connections.close()
