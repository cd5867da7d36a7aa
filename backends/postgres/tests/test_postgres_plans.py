"""How the server looks rows up among a million: by index, whatever it knows of them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import psycopg
import pytest
from psycopg.sql import SQL, Identifier, Literal

from cryptostore_postgres import transactions
from cryptostore_postgres.connecting import Connection
from cryptostore_postgres.database import PostgresDatabase as Database
from cryptostore_postgres.pipeline import Statement, run
from cryptostore_postgres.row_security import our_policies
from cryptostore_postgres.statements import Statements
from postgres_database import PostgresDatabase

#: An account with half of the rows, and one with a thousandth.
LARGE, SMALL = 500, 7

KEYS: Final = [b"\x05" + number.to_bytes(8) for number in range(0, 10_000, 2)]
NEXT: Final = [key + b"\x00" for key in KEYS]
END: Final = b"\xff" * 1_025
#: In microseconds since 1970.
WRITTEN_AT: Final = 1_793_000_000_000_000

MODES: Final = ("force_custom_plan", "force_generic_plan")
#: What a random page costs, where the next one costs 1.
DISKS: Final = ("1.1", "40")


class Case(NamedTuple):
    """One statement, and its parameters."""

    text: bytes
    parameters: tuple[Any, ...]
    by_index: bool = True


def cases(statements: Statements) -> Iterator[Case]:
    for account in (LARGE, SMALL):
        yield Case(statements.get_one, (account, KEYS[0]), by_index=False)
        for keys, behind in ((KEYS[:2], NEXT[:2]), (KEYS, NEXT)):
            yield Case(statements.get, (account, keys))
            yield Case(statements.ranges, (account, keys, behind))
            yield Case(statements.ranges, (account, keys, [*behind[:-1], END]))
        for stop, size in itertools.product((KEYS[1], END), (500, None)):
            yield Case(statements.page, (account, KEYS[0], stop, size))
        for puts, deletes in itertools.product(([], KEYS[:1], KEYS), ([], NEXT[:1], NEXT)):
            arrays = [*([puts, puts] if puts else []), *([deletes] if deletes else [])]
            if arrays:
                statement = statements.commit[bool(puts), bool(deletes)]
                yield Case(statement, (1, account, 1, 1, 0, WRITTEN_AT, *arrays), by_index=bool(deletes))


def plan_of(connection: Connection, case: Case, mode: str, disk: str) -> dict[str, Any]:
    """How the server would do a statement, with a plan for these parameters or for any, on a fast or a slow disk."""
    setting = Statement(b"SELECT set_config('plan_cache_mode', $1, true), set_config('random_page_cost', $2, true)")
    settings = [transactions._settings(connection, by_index=True)] if case.by_index else []
    values = SQL(", ").join(map(Literal, case.parameters))
    explain = SQL("EXPLAIN (FORMAT JSON) EXECUTE planned ({})").format(values).as_bytes(connection)
    prepare = Statement(b"PREPARE planned AS " + case.text)
    # Without BEGIN: the settings end with the pipeline.
    *_, [([plan],)], _ = run(
        connection,
        setting._replace(parameters=[mode, disk]),
        *settings,
        prepare,
        Statement(explain),
        Statement(b"DEALLOCATE planned"),
    )
    return dict(plan)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)


def assert_by_index(explained: dict[str, Any]) -> None:
    """Every look at the records is one by account and key, and finds no more than is wanted."""
    assert "JIT" not in explained
    found = list(nodes(explained["Plan"]))
    assert not [node for node in found if "Sort" in node["Node Type"]], explained
    reading = [node for node in found if node.get("Relation Name") == "record" and "Scan" in node["Node Type"]]
    for node in reading:
        if node["Node Type"] == "Tid Scan":
            continue  # of what another one found
        assert node["Node Type"] == "Index Scan", explained
        assert "(account_id = " in node["Index Cond"], node
        assert "(key " in node["Index Cond"], node
        assert "Filter" not in node, node
    assert [node for node in found if node.get("Relation Name") == "record"], explained


@pytest.fixture
def filled(postgres_database: PostgresDatabase, database: Database, database_schema: str) -> Identifier:
    """The table, with a million rows in no order, of which the server has no statistics."""
    record = Identifier(database_schema, "record")
    statement = (
        "ALTER TABLE {0} SET (autovacuum_enabled = off); ALTER TABLE {0} SET UNLOGGED; "
        "INSERT INTO {0} SELECT CASE WHEN n % 2 = 0 THEN {1} ELSE n % 1000 END, "
        "'\\x05'::bytea || int8send(n * 613 % 1000003), '' FROM generate_series(1, 1000000) AS n"
    )
    with postgres_database.connect() as connection:
        connection.execute(SQL(statement).format(record, Literal(LARGE)))
        assert columns_known(connection, record) == 0
    return record


def columns_known(connection: psycopg.Connection, table: Identifier) -> int:
    """Of how many of the columns the server has statistics."""
    statement = SQL("SELECT count(*) FROM pg_statistic WHERE starelid = {}::regclass").format(table.as_string())
    [(count,)] = connection.execute(statement).fetchall()
    return int(count)


def test_every_look_at_a_million_rows_is_by_index(
    postgres_database: PostgresDatabase, database: Database, database_schema: str, filled: Identifier
) -> None:
    with postgres_database.connect() as admin, database._connections.use(600) as connection:
        for columns in (0, 3):
            assert columns_known(admin, filled) == columns
            assert_all_by_index(connection, database_schema)
            if columns == 0:
                # It sorts, and may read all of the account for a page: what the settings are for.
                page = Case(Statements(database_schema).page, (LARGE, b"", END, 500), by_index=False)
                with pytest.raises(AssertionError):
                    assert_by_index(plan_of(connection, page, MODES[0], DISKS[-1]))
            with under_policies(admin, connection, database_schema):
                assert_all_by_index(connection, database_schema)
            admin.execute(SQL("ANALYZE {}").format(filled))


def assert_all_by_index(connection: Connection, schema: str) -> None:
    for case, mode, disk in itertools.product(cases(Statements(schema)), MODES, DISKS):
        assert_by_index(plan_of(connection, case, mode, disk))


@contextlib.contextmanager
def under_policies(admin: psycopg.Connection, connection: Connection, schema: str) -> Iterator[None]:
    """Let the tables' owner see its own accounts alone, as any other role does."""
    tables = [Identifier(schema, table) for table in ("schema_version", "account", "ownership", "record")]
    for table in tables:
        admin.execute(SQL("ALTER TABLE {} FORCE ROW LEVEL SECURITY").format(table))
    connection.policies = our_policies(connection, schema)
    assert connection.policies is not None
    yield
    for table in tables:
        admin.execute(SQL("ALTER TABLE {} NO FORCE ROW LEVEL SECURITY").format(table))
    connection.policies = None
