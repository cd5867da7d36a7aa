"""No name in a statement is another role's, whatever it has created and wherever the search path leads."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from cryptostore import AccountRow, Range
from cryptostore.plugins.urls import options_of
from cryptostore_contract.proxy import Proxy
from cryptostore_postgres import portions
from cryptostore_postgres.database import PostgresDatabase as Database
from cryptostore_postgres.database import open_postgres
from cryptostore_postgres.migrations import _second_look
from patience import wait_until
from postgres_database import ROLE, PostgresDatabase
from postgres_server import PostgresServer
from postgres_wire import Wire
from raw_databases import TIMEOUT, commit, next_batch, take_over

NAME: Final = "hostile"

#: The types for which functions and operators are created, as the server writes them, and others by their short names.
TYPES: Final = ("bytea", "text", "bigint", "integer", "boolean", "name", "xid", "oid", "tid")
ARRAYS: Final = ("bytea[]", "text[]", "bigint[]", "tid[]")
SHORT_NAMES: Final = ("bytea", "text", "int8", "int4", "bool", "name")
ANY: Final = ("anyarray", "anyelement")
SYMBOLS: Final = ("=", "<>", "<", "<=", ">", ">=", "+", "-", "||")
RELATIONS: Final = ("pg_tables", "pg_namespace", "pg_locks", "pg_stat_activity", "account", "ownership", "record")

_BODY: Final = "BEGIN PERFORM pg_catalog.nextval('public.calls'); RAISE 'the other role was called'; END"


class Function(NamedTuple):
    """One function of the server's own."""

    name: str
    arguments: list[str]
    returns: str
    is_set: bool


class Hostile(NamedTuple):
    """A database in which another role has created what it may."""

    server: PostgresServer
    #: A connection of the other role's.
    connection: psycopg.Connection

    def calls(self) -> int:
        """How often something of the other role's was called, whether or not an error came of it."""
        [(last, is_called)] = self.connection.execute("SELECT last_value, is_called FROM public.calls").fetchall()
        return int(last) if is_called else 0


@pytest.fixture(scope="module")
def hostile(breakable_database: PostgresDatabase) -> Iterator[Hostile]:
    server = breakable_database.server
    assert server is not None
    with server.connect() as admin:
        admin.execute("CREATE ROLE mallory LOGIN")
        admin.execute(SQL("CREATE DATABASE {} OWNER {}").format(Identifier(NAME), Identifier(ROLE)))
        with server.connect(NAME) as inside:
            inside.execute("GRANT CREATE ON SCHEMA public TO mallory")
        functions = used_functions(server)
        with psycopg.connect(server.url(NAME, "mallory"), autocommit=True) as connection:
            create_everything(connection, functions)
            yield Hostile(server, connection)
        admin.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(NAME)))
        admin.execute("DROP ROLE mallory")


def used_functions(server: PostgresServer) -> list[Function]:
    """Every function that a statement calls, in all of the forms that the server has of it."""
    wire = Wire()
    with Proxy(("127.0.0.1", server.port), tap=wire) as proxy:
        create_and_use(server, proxy.port)
    names = {name for each in wire.statements for name in re.findall(r"([a-z_0-9]+)\s*\(", each.text)}
    assert {"row_security_active", "pg_get_expr", "string_agg", "concat_ws"} <= names
    assert {"unnest", "set_config", "current_setting", "pg_advisory_xact_lock", "pg_terminate_backend"} <= names
    with server.connect(NAME) as admin:
        admin.execute("DROP SCHEMA cryptostore CASCADE")
        found = admin.execute(
            "SELECT proname, ARRAY(SELECT format_type(each, NULL) FROM unnest(proargtypes) AS each), "
            "format_type(prorettype, NULL), proretset FROM pg_proc "
            "WHERE proname = ANY(%s) AND pronamespace = 'pg_catalog'::regnamespace",
            [sorted(names)],
        ).fetchall()
    return [Function(*row) for row in found]


def create_and_use(server: PostgresServer, port: int | None = None) -> None:
    """Make the tables and use everything, and again where they are there already."""
    url = f"postgresql://{ROLE}@127.0.0.1:{port or server.port}/{NAME}?sslmode=disable&gssencmode=disable"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portions, "_PORTION", 50)
        for _ in range(2):
            database = open_postgres(url, options_of(url, {}), TIMEOUT)
            use_everything(database)
            database.close()
            under_policies(server)


def under_policies(server: PostgresServer) -> None:
    """From now on, who owns the tables sees its own accounts alone, as any other role does."""
    with server.connect(NAME) as admin:
        for table in ("schema_version", "account", "ownership", "record"):
            statement = SQL("ALTER TABLE {} FORCE ROW LEVEL SECURITY")
            admin.execute(statement.format(Identifier("cryptostore", table)))


def use_everything(database: Database) -> None:
    """Every statement that there is, each on rows that it finds."""
    take_over(database)
    row = commit(database, take_over(database), {b"a": b"1", b"b": b"1", b"c": b"1"})
    row = commit(database, row, {b"b": b"2", b"d": b"2"}, [b"c"])
    row = commit(database, row, deletes=[b"d"])
    row = commit(database, row)
    assert database.commit(row.id, next_batch(row)._replace(epoch=1), TIMEOUT) == row
    row = commit(database, row, {b"large": b"x" * 100, b"larger": b"x" * 100}, [b"a"])
    assert database.find(row.user_id, row.device_id, TIMEOUT) == row
    assert database.accounts(TIMEOUT) == [row]
    assert len(database.get(row.id, [b"b"], TIMEOUT)) == 1
    assert len(database.get(row.id, [b"b", b"large"], TIMEOUT)) == 2
    assert len(database.ranges(row.id, [Range(b"b", None)], TIMEOUT)) == 3
    assert len(database.ranges(row.id, [Range(b"b", b"c"), Range(b"l", None)], TIMEOUT)) == 3
    assert len(database.page(row.id, Range(b"b", None), 2, TIMEOUT)) == 2
    assert database.health(TIMEOUT).writable
    assert database.schema(TIMEOUT).version > 0
    use_what_is_rare(database, row)
    database.delete(row.id, TIMEOUT)


def use_what_is_rare(database: Database, row: AccountRow) -> None:
    """What serves an owner that meets a stalled one, and a first start that was not the first."""
    options = database._options
    with psycopg.connect(**options.connection) as stalled, database._connections.use(TIMEOUT) as connection:
        stalled.execute("UPDATE cryptostore.ownership SET owner = owner WHERE epoch OPERATOR(pg_catalog.>) 0")

        def is_ended() -> bool:
            database._end_stalled(connection, row.id)
            try:
                stalled.execute("SELECT 1")
            except psycopg.OperationalError:
                return True
            return False

        # The server takes a moment to see that a session waits for its client, and to end it.
        wait_until(is_ended)
        assert _second_look(connection, options.schema).version > 0


def create_everything(connection: psycopg.Connection, functions: Iterable[Function]) -> None:
    """Create all that a role may which could be taken for something else."""
    with connection.transaction():
        connection.execute("CREATE SEQUENCE public.calls; GRANT ALL ON public.calls TO PUBLIC")
        for statement in (*overloads(functions), *operators(), *types_and_relations()):
            connection.execute(statement.encode())


def overloads(functions: Iterable[Function]) -> Iterable[str]:
    """Functions of these names for their own types, and for others that the server might find to fit better."""
    created: dict[tuple[str, ...], str] = {}
    for name, arguments, returns, is_set in functions:
        forms = [[kind] * len(arguments) for kind in (*ARRAYS, *TYPES)]
        # Without the last ones, which may have defaults.
        forms += [arguments[:count] for count in range(1, len(arguments) + 1)]
        for form in forms:
            if form and not any(each.strip('"').startswith("any") for each in form):
                # What is made of an array is its elements.
                result = f"SETOF {form[0].removesuffix('[]')}" if is_set else returns
                created.setdefault((name, *form), function(name, form, result))
    return created.values()


def operators() -> Iterator[str]:
    pairs = [*itertools.product(TYPES, repeat=2), *((each, each) for each in (*ARRAYS, *ANY))]
    for number, (left, right) in enumerate(pairs):
        yield function(f"compare_{number}", [left, right], "boolean")
        for symbol in SYMBOLS:
            parts = f"LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = public.compare_{number}"
            yield f"CREATE OPERATOR public.{symbol} ({parts})"


def types_and_relations() -> Iterator[str]:
    yield function("refuse", [], "boolean")
    yield 'CREATE COLLATION public."C" FROM pg_catalog."POSIX"'
    for name in RELATIONS:
        yield f"CREATE VIEW public.{name} AS SELECT public.refuse(); GRANT ALL ON public.{name} TO PUBLIC"
    # The last ones: from now on the names mean these.
    for name in SHORT_NAMES:
        yield f"CREATE DOMAIN public.{name} AS pg_catalog.{name} CHECK (public.refuse())"


def function(name: str, arguments: Iterable[str], returns: str) -> str:
    return f"CREATE FUNCTION public.{name} ({', '.join(arguments)}) RETURNS {returns} LANGUAGE plpgsql AS $${_BODY}$$"


@pytest.mark.parametrize("search_path", ['"$user", public', "public, pg_catalog"])
def test_nothing_of_another_role_is_ever_called(hostile: Hostile, search_path: str) -> None:
    with hostile.server.connect() as admin:
        admin.execute(f"ALTER ROLE {ROLE} IN DATABASE {NAME} SET search_path = {search_path}".encode())
    before = hostile.calls()
    create_and_use(hostile.server)
    assert hostile.calls() == before
    with hostile.server.connect(NAME) as admin:
        statement = (
            "SELECT DISTINCT atttypid::regtype::text, attcollation::regcollation::text FROM pg_attribute "
            "JOIN pg_class ON pg_class.oid = attrelid WHERE relnamespace = 'cryptostore'::regnamespace AND attnum > 0"
        )
        numbers = {(name, "-") for name in ("bigint", "integer", "boolean", "bytea")}
        names = {(name, '"C"') for name in ("text", "name", "cstring")}
        assert set(admin.execute(statement).fetchall()) == numbers | names | {("text", '"default"')}
        admin.execute("DROP SCHEMA cryptostore CASCADE")


@pytest.mark.parametrize(
    ("search_path", "statement"),
    [
        ('"$user",public', "SELECT unnest('{a}'::pg_catalog.bytea[])"),
        ('"$user",public', "SELECT current_setting('jit'::pg_catalog.name)"),
        ('"$user",public', "SELECT 1::pg_catalog.int8 = 'a'::pg_catalog.text"),
        ("public,pg_catalog", "SELECT set_config('jit'::pg_catalog.text, 'off'::pg_catalog.text, true)"),
        ("public,pg_catalog", "SELECT 'a'::pg_catalog.bytea = 'a'::pg_catalog.bytea"),
        ("public,pg_catalog", "SELECT 1::pg_catalog.int8 <= 1::pg_catalog.int8"),
        ("public,pg_catalog", "SELECT * FROM pg_tables"),
        ("public,pg_catalog", "SELECT 'a'::bytea"),
    ],
)
def test_a_name_that_is_not_qualified_would_be_found(hostile: Hostile, search_path: str, statement: str) -> None:
    before = hostile.calls()
    with (
        psycopg.connect(hostile.server.url(NAME, ROLE), options=f"-c search_path={search_path}") as bot,
        pytest.raises(psycopg.errors.RaiseException, match="the other role was called"),
    ):
        bot.execute(statement.encode())
    assert hostile.calls() == before + 1
