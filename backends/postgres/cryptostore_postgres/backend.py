"""One PostgreSQL database, with any number of accounts in one schema of it."""

from __future__ import annotations

import time
from typing import Any

from cryptostore.errors import AccountNotFound, ConfigurationError
from cryptostore.interface import Backend, CryptoStore, Health, Mode, Ownership, Schema
from cryptostore.lifecycle import OpenFlag
from cryptostore.records import Account

from .accounts import AccountRow, Accounts
from .connections import Connection, Connections
from .migrations import SHIPPED, Migrations, read_schema
from .options import PostgresOptions, parse
from .statements import Statements
from .store import PostgresStore


class PostgresBackend(Backend):
    """The tables in one schema, behind one connection pool."""

    def __init__(self, options: PostgresOptions, migrations: Migrations = SHIPPED) -> None:
        self._options = options
        self._migrations = migrations
        self._accounts = Accounts(options.schema)
        self._statements = Statements(options.schema)
        self._is_open = OpenFlag(f"the PostgreSQL backend at {options.place}")
        self._connections = Connections(options)
        ends = time.monotonic() + options.common.deadline
        try:
            self._prepare(ends)
            self._connections.open(ends)
        except BaseException:
            self._connections.close()
            raise

    def open_store(self, account: Account, mode: Mode = Mode.OWN) -> CryptoStore:
        self._is_open.check()
        row = self._take_over(account) if mode is Mode.OWN else self._find(account)
        deadline = self._options.common.deadline
        return PostgresStore(self._connections, self._accounts, self._statements, row, mode, deadline, self._is_open)

    def accounts(self) -> dict[Account, Ownership]:
        self._is_open.check()
        rows = self._connections.read(self._accounts.all)
        return {row.account: row.ownership for row in rows}

    def delete_account(self, account: Account) -> None:
        self._is_open.check()
        attempts = 0

        def delete(connection: Connection, ends: float) -> bool:
            nonlocal attempts
            attempts += 1
            return self._accounts.delete(connection, account, ends)

        # An account that is gone at a second attempt was deleted by the first, whose answer was lost.
        if not self._connections.repeat(delete) and attempts == 1:
            raise AccountNotFound.missing(account)

    def health(self) -> Health:
        self._is_open.check()

        def ask(connection: Connection) -> Health:
            statement = "SELECT current_setting('server_version'), current_setting('transaction_read_only') = 'off'"
            version, writable = connection.execute(statement).fetchall()[0]
            return Health(server=f"PostgreSQL {version}", writable=writable)

        return self._connections.read(ask)

    def schema(self) -> Schema:
        self._is_open.check()
        return self._connections.read(lambda connection: read_schema(connection, self._options.schema))

    def close(self) -> None:
        if self._is_open.close():
            self._connections.close()

    def _prepare(self, ends: float) -> None:
        with self._connections.first(ends) as connection, self._connections.guarded(connection, ends):
            encoding = connection.info.parameter_status("server_encoding")
            if encoding != "UTF8":
                raise ConfigurationError(
                    f"the database at {self._options.place} has the encoding {encoding}; create one with UTF8, "
                    "as in createdb --encoding=UTF8 --template=template0 NAME"
                )
            self._migrations.ensure(connection, self._options)

    def _take_over(self, account: Account) -> AccountRow:
        owner = self._options.common.owner
        return self._connections.repeat(
            lambda connection, ends: self._accounts.take_over(connection, account, owner, ends)
        )

    def _find(self, account: Account) -> AccountRow:
        return self._connections.read(lambda connection: self._accounts.find(connection, account))


def open_postgres(url: str, /, **options: Any) -> PostgresBackend:
    """Open `postgresql://user:password@host:port/database?schema=…`; see `PostgresOptions` for what it takes."""
    return PostgresBackend(parse(url, options))
