"""A running program that is refused is told why by the server, and goes on when it is let in again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final, NamedTuple

import psycopg
import pytest
from psycopg.sql import SQL, Composed, Identifier

from cryptostore import BackendUnavailable, Changes, SyncToken, open_backend
from cryptostore_contract.handles import own
from postgres_server import PASSWORD_ROLE, PostgresServer

NAME: Final = Identifier("apart")
ROLE: Final = Identifier(PASSWORD_ROLE)


class Refusal(NamedTuple):
    """What an administrator does, and takes back, and what the program is told of it."""

    begin: Composed
    end: Composed
    told: str


REFUSALS: Final[dict[str, Refusal]] = {
    "password changed": Refusal(
        SQL("ALTER ROLE {} PASSWORD 'another'").format(ROLE),
        SQL("ALTER ROLE {} PASSWORD 'first'").format(ROLE),
        "password authentication failed .* check user and password",
    ),
    "login taken away": Refusal(
        SQL("ALTER ROLE {} NOLOGIN").format(ROLE),
        SQL("ALTER ROLE {} LOGIN").format(ROLE),
        "not permitted to log in; ALTER ROLE … LOGIN",
    ),
    "no connections for the role": Refusal(
        SQL("ALTER ROLE {} CONNECTION LIMIT 0").format(ROLE),
        SQL("ALTER ROLE {} CONNECTION LIMIT -1").format(ROLE),
        "too many connections for role .* CONNECTION LIMIT",
    ),
    "no connections for the database": Refusal(
        SQL("ALTER DATABASE {} CONNECTION LIMIT 0").format(NAME),
        SQL("ALTER DATABASE {} CONNECTION LIMIT -1").format(NAME),
        "too many connections for database .* raise max_connections",
    ),
    "right to connect taken away": Refusal(
        SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(NAME),
        SQL("GRANT CONNECT ON DATABASE {} TO PUBLIC").format(NAME),
        "permission denied for database .* GRANT CONNECT ON DATABASE",
    ),
    "database renamed": Refusal(
        SQL("ALTER DATABASE {} RENAME TO elsewhere").format(NAME),
        SQL("ALTER DATABASE elsewhere RENAME TO {}").format(NAME),
        'database "apart" does not exist; create it with createdb, or check the URL',
    ),
    "database closed": Refusal(
        SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(NAME),
        SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(NAME),
        'database "apart" is not currently accepting connections; ALTER DATABASE … ALLOW_CONNECTIONS true',
    ),
}


@pytest.fixture
def url(server: PostgresServer) -> Iterator[str]:
    """A database apart, of a role that is asked for its password and owns nothing but its schema."""
    with server.connect() as admin:
        admin.execute(SQL("CREATE ROLE {} LOGIN PASSWORD 'first'").format(ROLE))
        admin.execute(SQL("CREATE DATABASE {}").format(NAME))
        admin.execute(SQL("GRANT CREATE ON DATABASE {} TO {}").format(NAME, ROLE))
        yield f"postgresql://{PASSWORD_ROLE}:first@127.0.0.1:{server.port}/apart?deadline=2"
        admin.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(NAME))
        admin.execute(SQL("DROP ROLE {}").format(ROLE))


@contextlib.contextmanager
def refused(server: PostgresServer, refusal: Refusal) -> Iterator[None]:
    """Refuse new sessions, and end those that there are."""
    with server.connect() as admin:
        ending = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = %s"
        # A database in use cannot be renamed.
        admin.execute(ending, [PASSWORD_ROLE])
        admin.execute(refusal.begin)
        try:
            admin.execute(ending, [PASSWORD_ROLE])
            yield
        finally:
            admin.execute(refusal.end)


@pytest.mark.parametrize("name", REFUSALS)
def test_why_the_server_refuses_a_running_program_is_told(server: PostgresServer, url: str, name: str) -> None:
    refusal = REFUSALS[name]
    with open_backend(url) as backend:
        store = own(backend)
        store.apply(Changes([SyncToken("1")]))
        with refused(server, refusal):
            with pytest.raises(BackendUnavailable, match=refusal.told):
                store.get(SyncToken, [()])
            with pytest.raises(BackendUnavailable, match=refusal.told):
                store.apply(Changes([SyncToken("2")]))
        store.apply(Changes([SyncToken("2")]))
        assert store.get(SyncToken, [()]) == {(): SyncToken("2")}


def test_a_server_that_has_no_connection_left_is_told(server: PostgresServer, url: str) -> None:
    with open_backend(url) as backend, contextlib.ExitStack() as taken:
        store = own(backend)
        with refused(server, Refusal(SQL("SELECT {}").format(1), SQL("SELECT {}").format(1), "")):
            with contextlib.suppress(psycopg.OperationalError):
                while True:
                    taken.enter_context(contextlib.closing(psycopg.connect(url.partition("?")[0])))
            with pytest.raises(BackendUnavailable, match=r"has no free connection: .* raise max_connections"):
                store.get(SyncToken, [()])
        taken.close()
        assert store.get(SyncToken, [()]) == {}
