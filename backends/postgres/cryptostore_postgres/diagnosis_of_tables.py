"""What `cryptostore doctor` is told of the tables: whose they are, whether they are whole, and what the role may do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from psycopg.sql import SQL, Composable, Identifier

from cryptostore import ConfigurationError, CryptoStoreError, Finding, Level, Schema

from .checks import unsafe
from .connecting import Connection
from .diagnosis_of_server import Server
from .migrations import SHIPPED
from .options import Migrate, PostgresOptions
from .pipeline import Statement, run

#: What the first migration makes; later ones only add.
_COLUMNS: Final[Mapping[str, frozenset[str]]] = {
    "schema_version": frozenset({"version integer", "min_compatible integer"}),
    "account": frozenset({"id bigint", "user_id text", "device_id text", "role name"}),
    "ownership": frozenset(
        {f"{name} bigint" for name in ("account_id", "epoch", "incarnation", "sequence", "since", "written_at")}
        | {"owner text"}
    ),
    "record": frozenset({"account_id bigint", "key bytea", "value bytea"}),
}
_KEYS: Final[Mapping[str, frozenset[str]]] = {
    "account": frozenset({"id", "user_id device_id"}),
    "ownership": frozenset({"account_id"}),
    "record": frozenset({"account_id key"}),
}
_READ: Final = ("SELECT",)
_ALL: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
#: What a client needs.
_RIGHTS: Final[Mapping[str, tuple[str, ...]]] = {
    "schema_version": _READ,
    "account": _ALL,
    "ownership": _ALL,
    "record": _ALL,
}

_SCHEMA: Final = (
    b"SELECT pg_catalog.has_schema_privilege(oid, 'USAGE'), pg_catalog.has_schema_privilege(oid, 'CREATE'),"
    b" pg_catalog.pg_get_userbyid(nspowner)::pg_catalog.text"
    b" FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.=) $1::pg_catalog.text"
)
# By their ids: by its name, a table is not found without a right to its schema.
_TABLES: Final = b"""
    SELECT class.relname::pg_catalog.text, pg_catalog.pg_get_userbyid(class.relowner)::pg_catalog.text,
        ARRAY(SELECT may FROM pg_catalog.unnest('{SELECT,INSERT,UPDATE,DELETE}'::pg_catalog.text[]) AS may
            WHERE pg_catalog.has_table_privilege(class.oid, may)),
        ARRAY(SELECT pg_catalog.concat(attname, ' ', pg_catalog.format_type(atttypid, atttypmod))
            FROM pg_catalog.pg_attribute
            WHERE attrelid OPERATOR(pg_catalog.=) class.oid AND attnum OPERATOR(pg_catalog.>) 0 AND NOT attisdropped),
        ARRAY(SELECT ARRAY(SELECT attname::pg_catalog.text FROM pg_catalog.unnest(index.indkey) WITH ORDINALITY
                AS part (number, place) JOIN pg_catalog.pg_attribute
                ON attrelid OPERATOR(pg_catalog.=) class.oid AND attnum OPERATOR(pg_catalog.=) part.number
                ORDER BY place)::pg_catalog.text
            FROM pg_catalog.pg_index AS index
            WHERE index.indrelid OPERATOR(pg_catalog.=) class.oid AND index.indisunique AND index.indisvalid)
    FROM pg_catalog.pg_class AS class
    JOIN pg_catalog.pg_namespace AS space ON space.oid OPERATOR(pg_catalog.=) class.relnamespace
    WHERE space.nspname OPERATOR(pg_catalog.=) $1::pg_catalog.text
    AND class.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f}'::pg_catalog."char"[])"""


class _Table(NamedTuple):
    """One table, by what everybody may know of it. A key is the names of its columns."""

    name: str
    owner: str
    rights: list[str]
    columns: list[str]
    keys: list[str]


@dataclass(frozen=True)
class Tables:
    """A schema and what is in it."""

    is_there: bool
    may_use: bool
    may_create: bool
    owner: str
    of_ours: Mapping[str, _Table]
    #: The names of those that are not ours.
    others: list[str]
    #: The version, and how many accounts there are, where the role may read them.
    schema: Schema | None = None
    accounts: int | None = None

    @classmethod
    def read(cls, connection: Connection, name: str) -> Tables:
        """Ask the catalogs in one round trip, and the tables themselves in another one, where the role may."""
        [schemas, rows] = run(connection, Statement(_SCHEMA, [name]), Statement(_TABLES, [name]))
        tables = {row[0]: _Table._make(row) for row in rows}
        ours = {each: tables[each] for each in _COLUMNS if each in tables}
        may_use, may_create, owner = schemas[0] if schemas else (False, False, "")
        found = cls(bool(schemas), may_use, may_create, owner, ours, sorted(tables.keys() - _COLUMNS.keys()))
        if not found.is_readable:
            return found
        statement = SQL(
            "SELECT version, min_compatible, (SELECT pg_catalog.count(*)::pg_catalog.int4 FROM {}) FROM {}"
        ).format(Identifier(name, "account"), Identifier(name, "schema_version"))
        [versions] = run(connection, Statement(statement.as_bytes()))
        for version, min_compatible, accounts in versions:
            return cls(**{**vars(found), "schema": Schema(version, min_compatible), "accounts": accounts})
        return found

    @property
    def is_readable(self) -> bool:
        """Whether the version and the accounts can be read."""
        wanted = (self.of_ours.get("schema_version"), self.of_ours.get("account"))
        return self.may_use and all(table and "SELECT" in table.rights for table in wanted) and not self.strange

    @property
    def may_be_read(self) -> bool:
        """Whether the role may look at all that is stored."""
        return self.may_use and all("SELECT" in table.rights for table in self.of_ours.values())

    @property
    def strange(self) -> list[str]:
        """The tables that have a name of ours, and not the columns."""
        return [name for name, table in self.of_ours.items() if not _COLUMNS[name] <= set(table.columns)]

    @property
    def without_key(self) -> list[str]:
        """The tables that lack a key, as those of a restore that did not come to its end."""
        keys = {name: {" ".join(_names(key)) for key in table.keys} for name, table in self.of_ours.items()}
        return [name for name, wanted in _KEYS.items() if name in keys and not wanted <= keys[name]]


def look_at_tables(
    connection: Connection, options: PostgresOptions, tables: Tables, server: Server
) -> Iterator[Finding]:
    """What to say of the schema, its tables and the role's rights to them."""
    yield _schema(options, tables)
    if not tables.of_ours:
        yield from _rights_to_create(options, tables, server)
        return
    reasons, policies = unsafe(connection, options)
    for text in reasons:
        yield Finding.of_error("tables", ConfigurationError(text), prevents_opening=True)
    if not reasons:
        owners = " and ".join(sorted({repr(table.owner) for table in tables.of_ours.values()}))
        shown = "every account" if policies is None else "its own accounts alone (row security)"
        yield Finding("tables", Level.OK, f"owned by {owners}, and all are logged; this role sees {shown}")
    yield _rights(options, tables, server.role)


def _schema(options: PostgresOptions, tables: Tables) -> Finding:
    name = options.schema
    if not tables.of_ours:
        return _absent(options, tables)
    missing = [each for each in _COLUMNS if each not in tables.of_ours]
    if tables.strange or "schema_version" in missing:
        strange = ", ".join(tables.strange or tables.of_ours)
        seen = f"the schema {name!r} has tables of another program with names of ours: {strange}"
        return Finding(
            "schema", Level.PROBLEM, seen, "name another schema with schema=… in the URL", prevents_opening=True
        )
    if missing or tables.without_key:
        lacks = [f"the table {each}" for each in missing] + [f"a key of {each}" for each in tables.without_key]
        remedy = "was it dropped, or is a restore not complete? Then restore a backup, and begin with no empty tables"
        return Finding(
            "schema", Level.PROBLEM, f"the schema {name!r} lacks {', '.join(lacks)}", remedy, prevents_opening=True
        )
    return _version(options, tables.schema)


def _absent(options: PostgresOptions, tables: Tables) -> Finding:
    what = "has no tables of ours" if tables.is_there else "is not there"
    others = f", but {len(tables.others)} of others" if tables.others else ""
    seen = f"the schema {options.schema!r} at {options.place} {what}{others}"
    doubt = "if keys should be here, check the database's name, and schema=… in the URL; else "
    if options.migrate is Migrate.NEVER:
        remedy = f"{doubt}run `cryptostore migrate` as a role that may make them: with migrate=never clients do not"
        return Finding("schema", Level.PROBLEM, seen, remedy, prevents_opening=True)
    remedy = f"{doubt}the first client makes them, or `cryptostore migrate`"
    return Finding("schema", Level.WARNING, seen, remedy, prevents_opening=True)


def _version(options: PostgresOptions, found: Schema | None) -> Finding:
    name, latest = f"the schema {options.schema!r}", SHIPPED.latest
    if found is None:
        return Finding(
            "schema", Level.NOTE, f"{name} has our tables, and their version cannot be read", "see the rights"
        )
    try:
        found.refuse_if_newer(latest, f"{name} at {options.place}", "matrix-cryptostore-postgres")
    except CryptoStoreError as error:
        return Finding.of_error("schema", error, prevents_opening=True)
    seen = f"{name} has version {found.version}, and this program knows {latest}"
    if found.version >= latest:
        return Finding("schema", Level.OK, seen)
    if options.migrate is Migrate.NEVER:
        remedy = "take a backup, then run `cryptostore migrate` as the role that owns the tables"
        return Finding("schema", Level.PROBLEM, seen, remedy, prevents_opening=True)
    remedy = "take a backup: the next client brings it up to date, as `cryptostore migrate` does"
    return Finding("schema", Level.WARNING, seen, remedy, prevents_opening=True)


def _rights_to_create(options: PostgresOptions, tables: Tables, server: Server) -> Iterator[Finding]:
    """Whether the role can make the tables, where it is to."""
    if options.migrate is Migrate.NEVER:
        return
    schema, role = Identifier(options.schema), Identifier(server.role)
    if tables.is_there and not (tables.may_use and tables.may_create):
        missing = [_text("GRANT USAGE, CREATE ON SCHEMA {} TO {}", schema, role)]
        owner, what = tables.owner, "make tables in the schema"
    elif not tables.is_there and not server.may_create_schemas:
        missing = [_text("CREATE SCHEMA {} AUTHORIZATION {}", schema, role)]
        owner, what = server.database_owner, "make the schema"
    else:
        yield Finding("rights", Level.OK, f"the role {server.role!r} may make the tables")
        return
    seen = f"the role {server.role!r} may not {what} {options.schema!r}"
    yield Finding("rights", Level.PROBLEM, seen, f"let {owner!r} or a superuser run", tuple(missing))


def _rights(options: PostgresOptions, tables: Tables, role: str) -> Finding:
    missing = list(_missing_rights(options.schema, tables, role))
    if not missing:
        return Finding("rights", Level.OK, f"the role {role!r} may read and write every table")
    owners = " and ".join(sorted({repr(tables.owner), *(repr(table.owner) for table in tables.of_ours.values())}))
    return Finding(
        "rights",
        Level.PROBLEM,
        f"the role {role!r} lacks rights that clients need",
        f"let {owners} or a superuser run",
        tuple(missing),
        prevents_opening=not tables.may_be_read,
    )


def _missing_rights(schema: str, tables: Tables, role: str) -> Iterator[str]:
    if not tables.may_use:
        yield _text("GRANT USAGE ON SCHEMA {} TO {}", Identifier(schema), Identifier(role))
    for name, table in tables.of_ours.items():
        lacking = [right for right in _RIGHTS[name] if right not in table.rights]
        if lacking:
            rights = SQL(", ").join([SQL(right) for right in lacking])
            yield _text("GRANT {} ON {} TO {}", rights, Identifier(schema, name), Identifier(role))


def _names(array: str) -> list[str]:
    """The names in an array, as the server writes it."""
    return array.strip("{}").split(",")


def _text(template: str, *parts: Composable) -> str:
    return SQL(template).format(*parts).as_string() + ";"
