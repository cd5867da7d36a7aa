"""`cryptostore postgres-roles`: the SQL that makes a role which owns the tables, and a role for each bot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final

import typer
from psycopg.sql import SQL, Composable, Identifier, Literal

from cryptostore.errors import ConfigurationError

from .options import checked_schema
from .statements import TABLES

#: Longer names the server would cut.
_LONGEST: Final = 63

_INTRODUCTION: Final = """\
-- A role that makes the tables of matrix-cryptostore, and for each bot a role that sees its own accounts alone.
-- For a superuser, or a role that may create roles and schemas, in the database of the keys, as often as you like:
--   psql --set=ON_ERROR_STOP=1 --dbname=… --file=…
-- Then give each role its password with \\password ROLE, and let the owner run `cryptostore migrate`."""

_ROLE: Final = SQL("BEGIN CREATE ROLE {} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END")
# Only a member may act for the owner, unless a superuser runs this: where the server is rented, nobody is one.
_MEMBER: Final = SQL(
    "BEGIN IF NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) "
    "THEN GRANT {} TO CURRENT_USER; END IF; END"
)


def postgres_roles(
    owner: Annotated[str, typer.Option(metavar="ROLE", help="The role that makes and owns the tables.")],
    bot: Annotated[list[str], typer.Option(metavar="ROLE", help="A role that uses them; may be repeated.")],
    schema: Annotated[str, typer.Option(metavar="NAME", help="The schema, as in the URLs.")] = "cryptostore",
) -> None:
    """Write the SQL that makes a PostgreSQL role which owns the tables, and a role for each bot.

    A bot's role sees its own accounts alone, and can neither make nor change tables, also those of later versions.
    """
    for name in (owner, *bot):
        _check(name)
    if owner in bot:
        raise ConfigurationError(f"{owner!r} cannot be both: who owns the tables sees every account")
    lines = statements(Identifier(owner), list(map(Identifier, dict.fromkeys(bot))), checked_schema(schema))
    # Else it says for each table that is not there yet that it is not.
    begin = "BEGIN;\nSET LOCAL client_min_messages = warning;"
    typer.echo("\n".join([_INTRODUCTION, begin, *(f"{line.as_string()};" for line in lines), "COMMIT;"]))


def statements(owner: Composable, bots: list[Identifier], name: str) -> Iterator[Composable]:
    """What makes the roles and gives them their rights. Nothing is changed by a second time."""
    schema, all_bots = Identifier(name), SQL(", ").join(bots)
    for role in (owner, *bots):
        # The block as a literal, since a role's name may hold what ends a block in dollars.
        yield SQL("DO {}").format(Literal(_ROLE.format(role).as_string()))
    yield SQL("DO {}").format(Literal(_MEMBER.format(owner).as_string()))
    yield SQL("CREATE SCHEMA IF NOT EXISTS {} AUTHORIZATION {}").format(schema, owner)
    # Where a bot has made them itself.
    yield SQL("ALTER SCHEMA {} OWNER TO {}").format(schema, owner)
    for table in TABLES:
        yield SQL("ALTER TABLE IF EXISTS {} OWNER TO {}").format(Identifier(name, table), owner)
    yield SQL("REVOKE ALL ON SCHEMA {} FROM {}").format(schema, all_bots)
    yield SQL("REVOKE ALL ON ALL TABLES IN SCHEMA {} FROM {}").format(schema, all_bots)
    yield SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, all_bots)
    rights = SQL("SELECT, INSERT, UPDATE, DELETE")
    yield SQL("GRANT {} ON ALL TABLES IN SCHEMA {} TO {}").format(rights, schema, all_bots)
    # And on those that a later version makes.
    yield SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} IN SCHEMA {} GRANT {} ON TABLES TO {}").format(
        owner, schema, rights, all_bots
    )


def _check(name: str) -> None:
    if not name or "\0" in name or len(name.encode()) > _LONGEST:
        raise ConfigurationError(f"{name!r} is no name for a role: it must have 1 to {_LONGEST} bytes, and no NUL")
