"""Row security: a role that does not own the tables sees its own accounts alone.

The policies come with the tables. No others are accepted, since a row that is hidden counts as missing.
"""

from __future__ import annotations

import re
from typing import Final

from .connecting import Connection, Policies
from .pipeline import Statement, run
from .statements import ARRAY_OF_TABLES

#: Tells, of an array of tables' numbers, which policies they have, and whether one was changed since.
FINGERPRINT: Final = b"""
    SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' '::pg_catalog.text, policy.oid, policy.xmin),
        ','::pg_catalog.text ORDER BY policy.oid)
    FROM pg_catalog.pg_policy AS policy WHERE policy.polrelid OPERATOR(pg_catalog.=) ANY (%s::pg_catalog.oid[])"""

# Expressions are shown with the name of every schema but pg_catalog.
_NO_SEARCH_PATH: Final = Statement(b"SELECT pg_catalog.set_config('search_path', '', true)")
_TABLES: Final = (
    b"""
    SELECT class.oid FROM pg_catalog.pg_class AS class
    JOIN pg_catalog.pg_namespace AS space ON space.oid OPERATOR(pg_catalog.=) class.relnamespace
    WHERE space.nspname OPERATOR(pg_catalog.=) $1::pg_catalog.text AND class.relname OPERATOR(pg_catalog.=) ANY (%s)"""
    % ARRAY_OF_TABLES
)
_MARKED: Final = (
    b"SELECT ARRAY(" + _TABLES + b")::pg_catalog.text, (" + FINGERPRINT % (b"ARRAY(" + _TABLES + b")") + b")"
)
_POLICIES: Final = (
    b"""
    SELECT class.relname, policy.polcmd::pg_catalog.text, pg_catalog.pg_get_expr(policy.polqual, policy.polrelid),
        policy.polpermissive AND policy.polwithcheck IS NULL
        AND policy.polroles OPERATOR(pg_catalog.=) '{0}'::pg_catalog.oid[]
        AND pg_catalog.row_security_active(class.oid)
    FROM pg_catalog.pg_class AS class LEFT JOIN pg_catalog.pg_policy AS policy
        ON policy.polrelid OPERATOR(pg_catalog.=) class.oid
    WHERE class.oid OPERATOR(pg_catalog.=) ANY (ARRAY("""
    + _TABLES
    + b"))"
)


def our_policies(connection: Connection, schema: str) -> Policies | None:
    """The policies in force for this role, if they are all that the tables were made with, and no others."""
    tables = [schema]
    _, [marks], rows = run(connection, _NO_SEARCH_PATH, Statement(_MARKED, tables), Statement(_POLICIES, tables))
    found = {(name, command, _bare(shows)) for name, command, shows, is_for_all in rows if is_for_all}
    return Policies(*marks) if len(rows) == len(found) and found == _made(schema) else None


def _made(schema: str) -> set[tuple[str, str, str]]:
    """Each table, the commands that its policy is for (all, or reading), and which rows it shows, to everybody."""
    accounts = f"ARRAY(SELECT account.id FROM {schema}.account WHERE account.role = CURRENT_USER)"  # noqa: S608
    return {
        ("schema_version", "r", "true"),
        ("account", "*", _bare("role = CURRENT_USER")),
        ("ownership", "*", _bare(f"account_id = ANY ({accounts})")),
        ("record", "*", _bare(f"account_id = ANY ({accounts})")),
    }


def _bare(expression: str) -> str:
    """An expression as any server writes it, without blanks and the brackets of which some write more."""
    return re.sub(r"[\s()]", "", expression)
