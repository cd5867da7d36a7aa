"""The text of every statement on accounts and records.

No name in a statement is looked up on a search path, where it could be another role's: tables, types, functions and
operators are all qualified. In the text `=` is an assignment, and `{eq}` the comparison.
"""

from __future__ import annotations

from typing import Final

from psycopg.sql import SQL, Composable, Identifier

#: Those that the migrations make.
TABLES: Final = ("schema_version", "account", "ownership", "record")
#: The same in SQL.
ARRAY_OF_TABLES: Final = f"'{{{', '.join(TABLES)}}}'::pg_catalog.name[]".encode()

_QUALIFIED: Final = {
    "eq": SQL("OPERATOR(pg_catalog.=)"),
    "le": SQL("OPERATOR(pg_catalog.<=)"),
    "ge": SQL("OPERATOR(pg_catalog.>=)"),
    "lt": SQL("OPERATOR(pg_catalog.<)"),
    "plus": SQL("OPERATOR(pg_catalog.+)"),
    "bytea": SQL("pg_catalog.bytea"),
    "int8": SQL("pg_catalog.int8"),
    "text": SQL("pg_catalog.text"),
    "unnest": SQL("pg_catalog.unnest"),
    "row": SQL(
        "account.id, account.user_id, account.device_id, ownership.epoch, ownership.incarnation, ownership.sequence, "
        "ownership.owner, ownership.since, ownership.written_at"
    ),
}

# The account's row is written as it is: that locks it before the ownership, in the order of `delete`. By itself, since
# the policies of the other tables see no account that their own statement makes.
_NAME: Final = (
    "INSERT INTO {account} (id, user_id, device_id) VALUES ($1::{int8}, $2::{text}, $3::{text})"
    " ON CONFLICT (user_id, device_id) DO UPDATE SET user_id = excluded.user_id"
)
_CLAIM_ACCOUNT: Final = (
    "WITH account AS ("
    " SELECT id, user_id, device_id FROM {account} WHERE user_id {eq} $1::{text} AND device_id {eq} $2::{text}"
    "), ownership AS ("
    " INSERT INTO {ownership} AS present (account_id, epoch, incarnation, sequence, owner, since, written_at)"
    " SELECT account.id, 1, $3::{int8}, 0, $4::{text}, $5::{int8}, 0 FROM account"
    " ON CONFLICT (account_id) DO UPDATE SET epoch = present.epoch {plus} 1, incarnation = excluded.incarnation,"
    " owner = excluded.owner, since = excluded.since"
    " RETURNING account_id, epoch, incarnation, sequence, owner, since, written_at"
    ") SELECT {row} FROM account CROSS JOIN ownership"
)

# Who writes the account's rows and has not committed: its transaction is a row's xmax.
_HOLDING: Final = (
    "SELECT DISTINCT held.transactionid::{text} FROM {account} AS account"
    " JOIN {ownership} AS ownership ON ownership.account_id {eq} account.id"
    " JOIN pg_catalog.pg_locks AS held ON held.locktype {eq} 'transactionid' AND held.granted"
    " AND (held.transactionid {eq} account.xmax OR held.transactionid {eq} ownership.xmax)"
    " WHERE account.id {eq} $1::{int8} AND ownership.epoch {le} $2::{int8}"
)

_CLAIM: Final = (
    "UPDATE {ownership} SET sequence = $1::{int8}, written_at = $6::{int8}"
    " WHERE account_id {eq} $2::{int8} AND epoch {eq} $3::{int8}"
    " AND incarnation {eq} $4::{int8} AND sequence {eq} $5::{int8}"
    " RETURNING account_id, epoch, incarnation, sequence, owner, since, written_at"
)
_TOUCH: Final = (
    "UPDATE {ownership} SET sequence = sequence WHERE account_id {eq} $1::{int8}"
    " RETURNING account_id, epoch, incarnation, sequence, owner, since, written_at"
)
_PUT: Final = (
    "put AS (INSERT INTO {record} (account_id, key, value) SELECT ownership.account_id, new.key, new.value"
    " FROM ownership CROSS JOIN ROWS FROM ({unnest}($7::{bytea}[]), {unnest}($8::{bytea}[])) AS new (key, value)"
    " ON CONFLICT (account_id, key) DO UPDATE SET value = excluded.value)"
)
# By the rows' places: the planner takes a join on the keys for small, and reads the account's rows for each of them.
_DELETE: Final = (
    "gone AS (DELETE FROM {record} WHERE ctid {eq} ANY (ARRAY("
    "SELECT found.ctid FROM ownership CROSS JOIN {unnest}({keys}::{bytea}[]) AS unwanted (key) CROSS JOIN LATERAL ("
    "SELECT stored.ctid FROM {record} AS stored"
    " WHERE stored.account_id {eq} ownership.account_id AND stored.key {eq} unwanted.key LIMIT 1) AS found)))"
)
_FOUND_OWNERSHIP: Final = (
    " SELECT {row} FROM ownership JOIN {account} AS account ON account.id {eq} ownership.account_id"
)

_GET_ONE: Final = (
    "SELECT stored.key, stored.value FROM {record} AS stored"
    " WHERE stored.account_id {eq} $1::{int8} AND stored.key {eq} $2::{bytea} LIMIT 1"
)
_GET: Final = (
    "SELECT found.key, found.value FROM {unnest}($2::{bytea}[]) AS wanted (key) CROSS JOIN LATERAL ("
    "SELECT stored.key, stored.value FROM {record} AS stored"
    " WHERE stored.account_id {eq} $1::{int8} AND stored.key {eq} wanted.key LIMIT 1) AS found"
)
_RANGES: Final = (
    "SELECT found.key, found.value FROM ROWS FROM ({unnest}($2::{bytea}[]), {unnest}($3::{bytea}[]))"
    " AS wanted (start, stop) CROSS JOIN LATERAL (SELECT stored.key, stored.value FROM {record} AS stored"
    " WHERE stored.account_id {eq} $1::{int8} AND stored.key {ge} wanted.start AND stored.key {lt} wanted.stop"
    " ORDER BY stored.key) AS found"
)
# Without a number, the limit is none.
_PAGE: Final = (
    "SELECT stored.key, stored.value FROM {record} AS stored WHERE stored.account_id {eq} $1::{int8}"
    " AND stored.key {ge} $2::{bytea} AND stored.key {lt} $3::{bytea} ORDER BY stored.key LIMIT $4::{int8}"
)


class Statements:
    """Every statement, with the schema's name in it, worked out once for each database."""

    def __init__(self, schema: str) -> None:
        self._names: Final[dict[str, Composable]] = {
            **_QUALIFIED,
            **{name: Identifier(schema, name) for name in ("account", "ownership", "record")},
        }
        #: Makes the account, or writes it as it is. Raises where it is another role's.
        self.name: Final = self._text(_NAME)
        #: Makes the claimant its owner.
        self.claim: Final = self._text(_CLAIM_ACCOUNT)
        #: The account's row, with NULLs for an ownership that is missing.
        self.find: Final = self._text(
            "SELECT {row} FROM {account} AS account"
            " LEFT JOIN {ownership} AS ownership ON ownership.account_id {eq} account.id"
            " WHERE account.user_id {eq} $1::{text} AND account.device_id {eq} $2::{text}"
        )
        #: The same of every account; epoch 0 stands for a missing ownership, and empty ids for a missing account.
        self.accounts: Final = self._text(
            "SELECT coalesce(account.id, ownership.account_id), coalesce(account.user_id, ''),"
            " coalesce(account.device_id, ''), coalesce(ownership.epoch, 0), coalesce(ownership.incarnation, 0),"
            " coalesce(ownership.sequence, 0), coalesce(ownership.owner, ''), coalesce(ownership.since, 0),"
            " coalesce(ownership.written_at, 0) FROM {account} AS account"
            " FULL JOIN {ownership} AS ownership ON ownership.account_id {eq} account.id"
        )
        #: Whether an ownership has no account, which would be taken for a new one.
        self.is_one_nameless: Final = self._text(
            "SELECT EXISTS (SELECT FROM {ownership} AS ownership WHERE NOT EXISTS"
            " (SELECT FROM {account} AS account WHERE account.id {eq} ownership.account_id))"
        )
        self.holding: Final = self._text(_HOLDING)
        #: In this order; each takes the account's id.
        self.delete: Final = (
            self._text("SELECT FROM {account} WHERE id {eq} $1::{int8} FOR UPDATE"),
            self._text("DELETE FROM {ownership} WHERE account_id {eq} $1::{int8}"),
            self._text("DELETE FROM {record} WHERE account_id {eq} $1::{int8}"),
            self._text("DELETE FROM {account} WHERE id {eq} $1::{int8}"),
        )
        self.get_one: Final = self._text(_GET_ONE)
        self.get: Final = self._text(_GET)
        self.ranges: Final = self._text(_RANGES)
        self.page: Final = self._text(_PAGE)
        #: Writes the ownership as it is, and returns the account's row.
        self.touch: Final = self._text(f"WITH ownership AS ({_TOUCH}){_FOUND_OWNERSHIP}")
        #: By whether there are puts, and deletes. Each takes the new number, the account's id, the epoch, the
        #: incarnation, the number before and the time; the arrays of keys and of values; the array of keys.
        self.commit: Final = {
            (puts, deletes): self._commit(puts=puts, deletes=deletes)
            for puts in (False, True)
            for deletes in (False, True)
        }

    def _commit(self, *, puts: bool, deletes: bool) -> bytes:
        parts = [f"ownership AS ({_CLAIM})", *([_PUT] if puts else []), *([_DELETE] if deletes else [])]
        keys = SQL("$9" if puts else "$7")
        return self._text(f"WITH {', '.join(parts)}{_FOUND_OWNERSHIP}", keys=keys)

    def _text(self, template: str, **more: Composable) -> bytes:
        return SQL(template).format(**self._names, **more).as_bytes()
