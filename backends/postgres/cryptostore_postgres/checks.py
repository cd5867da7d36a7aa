"""What must not be true of the tables before anything in them is used or believed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from cryptostore.errors import ConfigurationError

from .connecting import Connection, Policies
from .options import Migrate, PostgresOptions
from .pipeline import Statement, run
from .row_security import our_policies
from .statements import ARRAY_OF_TABLES

#: The schema, and those of our tables that are there. Who owns the database could do anything to them anyhow.
_PARTS: Final = Statement(
    b"""
    SELECT part.name, owner.rolname,
        owner.rolsuper OR owner.oid OPERATOR(pg_catalog.=) here.datdba
        OR owner.rolname OPERATOR(pg_catalog.=) 'pg_database_owner'::pg_catalog.name
        OR pg_catalog.pg_has_role(current_user, owner.oid, 'MEMBER'::pg_catalog.text),
        part.hides_rows, part.is_unlogged
    FROM (
        SELECT NULL::pg_catalog.name AS name, nspowner AS owner, false AS hides_rows, false AS is_unlogged
        FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.=) $1::pg_catalog.text
        UNION ALL
        SELECT class.relname, class.relowner, pg_catalog.row_security_active(class.oid),
            class.relpersistence OPERATOR(pg_catalog.=) 'u'
        FROM pg_catalog.pg_class AS class
        JOIN pg_catalog.pg_namespace AS space ON space.oid OPERATOR(pg_catalog.=) class.relnamespace
        WHERE space.nspname OPERATOR(pg_catalog.=) $1::pg_catalog.text
        AND class.relname OPERATOR(pg_catalog.=) ANY (%s)
    ) AS part
    JOIN pg_catalog.pg_roles AS owner ON owner.oid OPERATOR(pg_catalog.=) part.owner
    JOIN pg_catalog.pg_database AS here ON here.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()"""
    % ARRAY_OF_TABLES
)


class _Part(NamedTuple):
    """The schema, whose name is None, or a table in it."""

    name: str | None
    owner: str
    #: Whether this role has nothing to fear from the owner.
    is_trusted: bool
    hides_rows: bool
    is_unlogged: bool


def refuse_encoding(connection: Connection, place: str) -> None:
    """Raise ConfigurationError for a database that cannot store every text."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise ConfigurationError(
            f"the database at {place} has the encoding {encoding}; create one with UTF8, as in createdb "
            "--encoding=UTF8 --template=template0 NAME"
        )


def refuse_unsafe(connection: Connection, options: PostgresOptions) -> Policies | None:
    """Raise ConfigurationError where rows are hidden, a table is not logged, or a stranger owns what is ours.

    A row that another policy than ours hides would count as missing, and a crash of the server empties a table that is
    not logged. The owner of a table can attach a trigger or a policy to it, whose code runs with the rights of the role
    that uses it; migrate=never says that another owner is meant.

    Returns our policies, where they are in force for this role.
    """
    parts, policies = _look_at(connection, options)
    for text in _reasons(parts, policies, connection.info.user, options):
        raise ConfigurationError(text)
    return policies


def unsafe(connection: Connection, options: PostgresOptions) -> tuple[list[str], Policies | None]:
    """Each reason for which `refuse_unsafe` refuses the tables, with the remedy; and what it would return."""
    parts, policies = _look_at(connection, options)
    return list(_reasons(parts, policies, connection.info.user, options)), policies


def _look_at(connection: Connection, options: PostgresOptions) -> tuple[list[_Part], Policies | None]:
    [rows] = run(connection, Statement(_PARTS.text, [options.schema]))
    parts = list(map(_Part._make, rows))
    return parts, our_policies(connection, options.schema) if any(part.hides_rows for part in parts) else None


def _reasons(parts: Iterable[_Part], policies: Policies | None, role: str, options: PostgresOptions) -> Iterator[str]:
    for part in parts:
        what = f"the table {options.schema}.{part.name}" if part.name else f"the schema {options.schema}"
        if part.is_unlogged:
            yield (
                f"{what} at {options.place} is UNLOGGED: a crash of the server would empty it; let its owner run "
                f"ALTER TABLE {options.schema}.{part.name} SET LOGGED"
            )
        if not part.is_trusted and options.migrate is Migrate.AUTO:
            yield (
                f"{what} at {options.place} belongs to the role {part.owner!r}, which could run code with the rights "
                f"of {role!r}; if it is the role that makes the tables, put migrate=never into the URL, or GRANT "
                f'"{part.owner}" TO "{role}"; else name another schema with schema=…'
            )
        if part.hides_rows and policies is None:
            yield (
                f"{what} at {options.place} hides rows from the role {role!r} by other policies than the tables were "
                "made with, and hidden rows would count as missing; its owner can run ALTER TABLE "
                f"{options.schema}.{part.name} DISABLE ROW LEVEL SECURITY, or a superuser ALTER ROLE "
                f'"{role}" BYPASSRLS'
            )
