"""What `cryptostore doctor` is told of a PostgreSQL database, whether it can be opened or not."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import psycopg

from cryptostore import BackendUnavailable, ConfigurationError, CryptoStoreError, Finding, Level

from .checks import refuse_encoding
from .connecting import Connection, Connector
from .connections import Connections
from .diagnosis_of_server import Server, look_at_server
from .diagnosis_of_tables import Tables, look_at_tables
from .hosts import Hosts
from .options import PostgresOptions, parse
from .pipeline import Statement, run
from .poolers import Pooling, look_at_pooler
from .tls import look_at_encryption

#: What is looked at, by the names of the findings.
CHECKS: Final[Mapping[str, str]] = {
    "driver": "psycopg and libpq, and whether they are the fast ones",
    "server": "PostgreSQL answers and takes writes",
    "hosts": "where the URL names several, those that it would fail over to",
    "database": "the database that the URL names is there, and stores UTF-8",
    "role": "the server lets the role in",
    "TLS": "connections to another host are encrypted, and its certificate is checked",
    "latency": "how long one round trip takes",
    "durability": "`fsync`, `full_page_writes` and `synchronous_commit`",
    "connections": "the pools of all accounts fit into `max_connections` and the limits of the role and the database",
    "pooler": "PgBouncer or another one in between, and its mode",
    "schema": "the tables are there, ours, whole, and of a version that this program knows",
    "tables": "nobody else owns them, no policy hides rows, and a crash does not empty them",
    "rights": "the role has every right; the exact statements that are missing are printed",
}

#: Above this, a client spends most of its time on waiting.
_SLOW_MILLISECONDS: Final = 20.0
_ROUND_TRIPS: Final = 5

#: For a host that may be silent.
_OTHER_HOST_SECONDS: Final = 2.0
#: What libpq says of one, whatever language the server speaks.
_OF_A_STANDBY: Final = ("session is read-only", "server is in hot standby mode")


def diagnose(url: str, options: Mapping[str, Any], timeout: float) -> Iterator[Finding]:
    """What there is to say of the database. Changes nothing. Raises ConfigurationError for the URL and its options."""
    yield _driver()
    parsed = parse(url, options)
    connections = Connections(parsed)
    try:
        yield from _connected(connections, parsed, time.monotonic() + timeout)
    finally:
        connections.close()


def _connected(connections: Connections, options: PostgresOptions, ends: float) -> Iterator[Finding]:
    try:
        connections.open(ends)
    except (BackendUnavailable, ConfigurationError) as error:
        yield Finding.of_error(_check_of(error), error, prevents_opening=True)
        return
    try:
        with connections.use(ends - time.monotonic()) as connection:
            yield from _look(connection, options)
    except BackendUnavailable as error:
        yield Finding.of_error("server", error)
    except CryptoStoreError as error:
        # Clients may do without what was asked here.
        yield Finding("server", Level.WARNING, "not everything could be looked at", str(error))


def _look(connection: Connection, options: PostgresOptions) -> Iterator[Finding]:
    server = Server.read(connection)
    yield from look_at_server(server, connection.place)
    yield from _hosts(connection, options)
    yield from _places(connection, server)
    yield look_at_encryption(_in_force(connection), is_encrypted=bool(connection.pgconn.ssl_in_use))
    yield _latency(connection)
    pooling = Pooling.read(connection, options)
    yield look_at_pooler(pooling)
    tables = Tables.read(connection, options.schema)
    yield server.look_at_connections(tables.accounts, options.pool_size, is_pooled=pooling is not Pooling.NONE)
    yield from look_at_tables(connection, options, tables, server)


def _hosts(connection: Connection, options: PostgresOptions) -> Iterator[Finding]:
    others = [host for host in Hosts(options).in_order() if host.place != connection.place]
    if not others:
        yield Finding("hosts", Level.OK, "the URL names no other host")
    for host in others:
        try:
            Connector(host).connect(time.monotonic() + _OTHER_HOST_SECONDS).close()
        except (BackendUnavailable, ConfigurationError) as error:
            yield _no_help(host, error)
        else:
            yield Finding("hosts", Level.OK, f"{host.place} takes writes, too")


def _no_help(host: PostgresOptions, error: CryptoStoreError) -> Finding:
    """A host that was not let in to, as a standby's is where the URL wants to write."""
    seen, _, remedy = str(error).partition("; ")
    if any(sign in seen for sign in _OF_A_STANDBY):
        return Finding("hosts", Level.OK, f"{host.place} is a standby")
    return Finding("hosts", Level.WARNING, f"no client could fail over to it: {seen}", remedy)


def _driver() -> Finding:
    library = psycopg.pq.version()
    seen = f"psycopg {psycopg.__version__} ({psycopg.pq.__impl__}), libpq {library // 10_000}.{library % 10_000}"
    if psycopg.pq.__impl__ == "python":
        return Finding("driver", Level.NOTE, seen, "psycopg[binary] or psycopg[c] is several times as fast")
    return Finding("driver", Level.OK, seen)


def _places(connection: Connection, server: Server) -> Iterator[Finding]:
    try:
        refuse_encoding(connection, connection.place)
    except ConfigurationError as error:
        yield Finding.of_error("database", error, prevents_opening=True)
    else:
        yield Finding("database", Level.OK, f"{connection.info.dbname!r}, owned by {server.database_owner!r}")
    seen = f"{server.role!r} is let in"
    if server.is_superuser:
        remedy = "let clients use a role of their own that owns their schema, or only reads and writes its rows"
        yield Finding("role", Level.WARNING, f"{seen}, and is a superuser", remedy)
    else:
        yield Finding("role", Level.OK, seen)


def _in_force(connection: Connection) -> dict[str, str]:
    """libpq's parameters, also those of the environment, of a service and by default."""
    return {each.keyword.decode(): each.val.decode() for each in connection.pgconn.info if each.val}


def _latency(connection: Connection) -> Finding:
    milliseconds = 1_000 * statistics.median(_round_trip(connection) for _ in range(_ROUND_TRIPS))
    seen = f"a round trip takes {milliseconds:.2f} ms"
    if milliseconds > _SLOW_MILLISECONDS:
        return Finding("latency", Level.NOTE, seen, "each sync waits for a few of them: move clients nearer to it")
    return Finding("latency", Level.OK, seen)


def _round_trip(connection: Connection) -> float:
    started = time.perf_counter()
    run(connection, Statement(b"SELECT 1"))
    return time.perf_counter() - started


def _check_of(error: CryptoStoreError) -> str:
    """Which check has failed where no connection was had."""
    text = str(error).lower()
    if isinstance(error, BackendUnavailable) or "parameters in the database url" in text:
        return "server"
    if "ssl" in text.partition("; ")[0] or "certificate" in text:
        return "TLS"
    is_database = "no such database" in text or "for database" in text or ('database "' in text and "exist" in text)
    return "database" if is_database else "role"
