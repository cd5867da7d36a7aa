"""One PostgreSQL database, with any number of accounts in one schema of it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg
from psycopg.errors import InsufficientPrivilege, LockNotAvailable, ReadOnlySqlTransaction
from psycopg.sql import SQL, Composable, Identifier, Literal

from cryptostore.errors import ConfigurationError, SchemaError
from cryptostore.logs import logger
from cryptostore.store import interface
from cryptostore.store.interface import (
    MAX_KEY_BYTES,
    AccountRow,
    Batch,
    Database,
    Health,
    Range,
    Row,
    Schema,
    TakeOver,
)

from .arrays import ByteaArray
from .checks import refuse_encoding
from .connecting import Connection
from .connections import Connections
from .errors import is_hidden_row
from .migrations import SHIPPED, Migrations, read_schema
from .options import PostgresOptions, parse
from .pipeline import Parameter, Rows, Statement, run
from .portions import Portion, portions
from .statements import Statements
from .transactions import ROLLBACK, begin, commit, end_stalled, explain_lock, read, write

#: Above every key.
_END: Final = b"\xff" * (MAX_KEY_BYTES + 1)
_ANY_EPOCH: Final = 2**63 - 1

_HEALTH: Final = Statement(
    b"SELECT pg_catalog.current_setting('server_version'), "
    b"pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'off', "
    b"pg_catalog.current_setting('fsync'), pg_catalog.current_setting('full_page_writes')"
)

_REMOVE_UNOWNED: Final = SQL("DELETE FROM {record} WHERE account_id = {id}; DELETE FROM {account} WHERE id = {id}")
_REMOVE_NAMELESS: Final = SQL(
    "DELETE FROM {record} WHERE account_id NOT IN (SELECT id FROM {account}); "
    "DELETE FROM {ownership} WHERE account_id NOT IN (SELECT id FROM {account})"
)

#: Not always that which has logged in.
_CURRENT_ROLE: Final = Statement(b"SELECT current_user")

_log: Final = logger(__name__)


class PostgresDatabase(Database):
    """The tables in one schema, behind a few connections."""

    def __init__(self, options: PostgresOptions, timeout: float, migrations: Migrations = SHIPPED) -> None:
        self._options: Final = options
        self._statements: Final = Statements(options.schema)
        self._connections: Final = Connections(options)
        ends = time.monotonic() + timeout
        try:
            self._connections.open(ends)
            with self._connections.use(ends - time.monotonic()) as connection:
                refuse_encoding(connection, options.place)
                self._connections.policies = migrations.ensure(connection, options)
                _warn_if_not_durable(_health(connection), options.place)
        except BaseException:
            self._connections.close()
            raise

    def take_over(self, user_id: str, device_id: str, claim: TakeOver, timeout: float) -> AccountRow:
        name = Statement(self._statements.name, [claim.new_id, user_id, device_id])
        owner: list[Parameter] = [user_id, device_id, claim.incarnation, claim.owner, claim.since]
        with self._connections.use(timeout) as connection:
            try:
                _, [row] = write(connection, name, Statement(self._statements.claim, owner))
            except LockNotAvailable:
                connection.rollback()
                present = self._find(connection, user_id, device_id)
                if present is not None:
                    self._end_stalled(connection, present.id)
                explain_lock(connection)
                raise
            except InsufficientPrivilege as error:
                connection.rollback()
                self._refuse_hidden(connection, error, user_id, device_id)
                raise
            return AccountRow._make(row)

    def find(self, user_id: str, device_id: str, timeout: float) -> AccountRow | None:
        with self._connections.use(timeout) as connection:
            row = self._find(connection, user_id, device_id)
            if row is None:
                self._refuse_nameless(connection)
                if connection.policies is not None:
                    self._refuse_if_hidden(connection, user_id, device_id)
            return row

    def accounts(self, timeout: float) -> list[AccountRow]:
        with self._connections.use(timeout) as connection:
            rows = read(connection, Statement(self._statements.accounts), by_index=False)
            return list(map(AccountRow._make, rows))

    def delete(self, account_id: int, timeout: float) -> None:
        with self._connections.use(timeout) as connection:
            try:
                write(connection, *[Statement(text, [account_id]) for text in self._statements.delete])
            except LockNotAvailable:
                connection.rollback()
                self._end_stalled(connection, account_id)
                explain_lock(connection)
                raise

    def get(self, account_id: int, keys: Sequence[bytes], timeout: float) -> list[Row]:
        with self._connections.use(timeout) as connection:
            if len(keys) == 1:
                # One key leaves the planner no choice.
                rows = read(connection, Statement(self._statements.get_one, [account_id, keys[0]]), by_index=False)
            else:
                rows = read(connection, Statement(self._statements.get, [account_id, ByteaArray(keys)]))
            return list(map(Row._make, rows))

    def ranges(self, account_id: int, ranges: Sequence[Range], timeout: float) -> list[Row]:
        if len(ranges) == 1:
            return self._page(account_id, ranges[0], None, timeout)
        starts, stops = ByteaArray([each.start for each in ranges]), ByteaArray(list(map(_stop, ranges)))
        with self._connections.use(timeout) as connection:
            rows = read(connection, Statement(self._statements.ranges, [account_id, starts, stops]))
            # In order already, though nothing in the statement says so.
            return list(map(Row._make, sorted(rows)))

    def page(self, account_id: int, within: Range, size: int, timeout: float) -> list[Row]:
        return self._page(account_id, within, size, timeout)

    def commit(self, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        with self._connections.use(timeout) as connection:
            try:
                return self._committed(connection, account_id, batch) or self._confirmed(connection, account_id)
            except LockNotAvailable:
                connection.rollback()
                # Perhaps an earlier attempt at this batch, of which the server has only the beginning.
                self._end_stalled(connection, account_id, batch.epoch)
                explain_lock(connection)
                raise

    def health(self, timeout: float) -> Health:
        with self._connections.use(timeout) as connection:
            return _health(connection)

    def schema(self, timeout: float) -> Schema:
        with self._connections.use(timeout) as connection:
            return read_schema(connection, self._options.schema)

    def connections(self) -> interface.Connections:
        return self._connections.count()

    def close(self) -> None:
        self._connections.close()

    def _find(self, connection: Connection, user_id: str, device_id: str) -> AccountRow | None:
        """The row of an account. Raises SchemaError where its ownership is missing."""
        rows = read(connection, Statement(self._statements.find, [user_id, device_id]), by_index=False)
        if rows and None in rows[0]:
            raise self._half(f"the ownership of {user_id} {device_id}", _REMOVE_UNOWNED, id=Literal(rows[0][0]))
        return _first(rows)

    def _refuse_nameless(self, connection: Connection) -> None:
        """Raise SchemaError for an ownership without its account: it may be that which is looked for."""
        [[(is_one_nameless,)]] = run(connection, Statement(self._statements.is_one_nameless))
        if is_one_nameless:
            raise self._half("the account of an ownership", _REMOVE_NAMELESS)

    def _half(self, missing: str, removing: SQL, **parameters: Composable) -> SchemaError:
        schema = self._options.schema
        tables = {name: Identifier(schema, name) for name in ("account", "ownership", "record")}
        remedy = removing.format(**tables, **parameters)
        return SchemaError(
            f"{missing} is missing in schema {schema!r} at {self._options.place}; restore a backup of the database, or "
            f"restore or copy the account after removing what is left of it with: {remedy.as_string()}"
        )

    def _refuse_if_hidden(self, connection: Connection, user_id: str, device_id: str) -> None:
        """Raise ConfigurationError where the account is there and another role's: that is not absent.

        Only an attempt to make it tells. It is undone, and where this role may not write, nothing would be made anyhow.
        """
        parameters: list[Parameter] = [-1 - secrets.randbits(62), user_id, device_id]
        try:
            run(connection, *begin(connection, by_index=False), Statement(self._statements.name, parameters), ROLLBACK)
        except (InsufficientPrivilege, ReadOnlySqlTransaction) as error:
            connection.rollback()
            self._refuse_hidden(connection, error, user_id, device_id)
        except LockNotAvailable:
            connection.rollback()
            explain_lock(connection)
            raise

    def _refuse_hidden(self, connection: Connection, error: psycopg.Error, user_id: str, device_id: str) -> None:
        """Raise ConfigurationError where the server said that the account is another role's."""
        if is_hidden_row(error):
            [[(role,)]], schema = run(connection, _CURRENT_ROLE), self._options.schema
            remedy = SQL("UPDATE {} SET role = {} WHERE user_id = {} AND device_id = {}").format(
                Identifier(schema, "account"), Literal(role), Literal(user_id), Literal(device_id)
            )
            raise ConfigurationError(
                f"the account {user_id} {device_id} is in schema {schema!r} at {self._options.place} already, and "
                f"belongs to another role than {role!r}: use the URL with that role, or let the owner of the tables "
                f"run {remedy.as_string()}"
            ) from None

    def _page(self, account_id: int, within: Range, size: int | None, timeout: float) -> list[Row]:
        parameters: list[Parameter] = [account_id, within.start, _stop(within), size]
        with self._connections.use(timeout) as connection:
            rows = read(connection, Statement(self._statements.page, parameters))
            return list(map(Row._make, rows))

    def _committed(self, connection: Connection, account_id: int, batch: Batch) -> AccountRow | None:
        """The account's row, where this batch was its next one and is committed."""
        first, *others = portions(batch)
        owner = [account_id, batch.epoch, batch.incarnation]
        storing = self._storing(first, [batch.number, *owner, batch.number - 1, batch.written_at])
        if not others:
            return _first(write(connection, storing, by_index=bool(first.deletes))[0])
        rows = run(connection, *begin(connection, by_index=True), storing)[-1]
        for portion in others:
            if rows:
                [rows] = run(connection, self._storing(portion, [batch.number, *owner, batch.number, batch.written_at]))
        commit(connection)
        return _first(rows)

    def _storing(self, portion: Portion, parameters: list[Parameter]) -> Statement:
        """What stores a portion. The parameters are the number to store, and the ownership as it must be found."""
        if portion.puts:
            keys, values = zip(*portion.puts, strict=True)
            parameters += [ByteaArray(keys), ByteaArray(values)]
        if portion.deletes:
            parameters.append(ByteaArray(portion.deletes))
        return Statement(self._statements.commit[bool(portion.puts), bool(portion.deletes)], parameters)

    def _confirmed(self, connection: Connection, account_id: int) -> AccountRow | None:
        """The account's row, which is durable: what was committed before may have been seen by the primary alone.

        A later write of the row that is replicated says that the earlier one is.
        """
        return _first(write(connection, Statement(self._statements.touch, [account_id]))[0])

    def _end_stalled(self, connection: Connection, account_id: int, epoch: int = _ANY_EPOCH) -> None:
        """End what holds the account's rows, of owners up to `epoch`, while its client is silent."""
        [transactions] = run(connection, Statement(self._statements.holding, [account_id, epoch]))
        end_stalled(connection, transactions)


def _health(connection: Connection) -> Health:
    [[(version, writable, fsync, full_page_writes)]] = run(connection, _HEALTH)
    settings = {"fsync": fsync, "full_page_writes": full_page_writes}
    off = " and ".join(f"{name} = off" for name, setting in settings.items() if setting == "off")
    return Health(server=f"PostgreSQL {version}", writable=writable, not_durable=off)


def _warn_if_not_durable(health: Health, place: str) -> None:
    if health.not_durable:
        _log.warning(
            "PostgreSQL at %s has %s: a power failure may take acknowledged batches, or the whole database; turn it on "
            "in the server's configuration",
            place,
            health.not_durable,
        )


def _first(rows: Rows) -> AccountRow | None:
    return AccountRow._make(rows[0]) if rows else None


def _stop(within: Range) -> bytes:
    return _END if within.end is None else within.end


def open_postgres(url: str, options: Mapping[str, Any], timeout: float) -> PostgresDatabase:
    """Open `postgresql://user:password@host:port/database?schema=…`; see `PostgresOptions` for what it takes."""
    return PostgresDatabase(parse(url, options), timeout)
