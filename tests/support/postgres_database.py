"""The PostgreSQL that a test run works in: a server of its own, or one that the environment names."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from cryptostore.plugins.urls import options_of
from cryptostore_postgres import database as opened
from postgres_server import NoPostgres, PostgresServer

#: The role that backends use, as in production: it owns its schemas and is no superuser.
ROLE: Final = "cryptostore"
DATABASE: Final = "cryptostore_test"

#: The server trusts this machine and does not ask for it: a canary in every URL, which no error and no log may show.
PASSWORD: Final = "canary of the p@ssword"

_URL_VARIABLE: Final = "CRYPTOSTORE_TEST_POSTGRES_URL"
_PARTS: Final = {
    "host": "POSTGRES_HOST",
    "port": "POSTGRES_PORT",
    "dbname": "POSTGRES_DB",
    "user": "POSTGRES_USER",
    "password": "POSTGRES_PASSWORD",
}
_OPENING_SECONDS: Final = 30.0
_numbers: Final = itertools.count(1)


class PostgresDatabase:
    """One database in which every test has a schema of its own. `server` is None for one that is not ours to break."""

    def __init__(self, parameters: dict[str, Any], server: PostgresServer | None = None) -> None:
        self._parameters = parameters
        self.server: Final = server

    @property
    def address(self) -> tuple[str, int] | str:
        """Where the server listens: what a proxy connects to."""
        host, port = str(self._parameters.get("host") or "/var/run/postgresql"), int(self._parameters.get("port", 5432))
        return f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)

    def connect(self, **parameters: Any) -> psycopg.Connection:
        """A connection of the tests' own in autocommit, without a proxy before it; a superuser's where we have one."""
        if self.server is not None:
            return self.server.connect(str(self._parameters["dbname"]))
        return psycopg.connect(**{**self._parameters, **parameters}, autocommit=True)

    def url(self, schema: str, port: int | None = None) -> str:
        """A backend's URL for a schema; `port` is a proxy's on this machine."""
        parts = dict(self._parameters)
        if port is not None:
            parts |= {"host": "127.0.0.1", "port": port}
        login = quote(str(parts["user"]), safe="")
        if parts.get("password"):
            login += ":" + quote(str(parts["password"]), safe="")
        place = f"{quote(str(parts['host']), safe='')}:{parts.get('port', 5432)}/{quote(str(parts['dbname']), safe='')}"
        return f"postgresql://{login}@{place}?schema={schema}"

    def open(self, schema: str, port: int | None = None, **options: Any) -> opened.PostgresDatabase:
        """The backend's database in a schema, without the core before it; the caller closes it."""
        url = self.url(schema, port)
        return opened.open_postgres(url, options_of(url, options), _OPENING_SECONDS)

    def new_schema(self) -> str:
        """A name for a schema that is not there yet."""
        return f"t{os.getpid()}_{next(_numbers)}"

    def drop_schema(self, schema: str) -> None:
        """Remove a schema with all that is in it."""
        with self.connect() as connection:
            connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schema)))

    def end_sessions(self) -> None:
        """End every other session in the database."""
        with self.connect() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )


@contextmanager
def provided_database(settings: Mapping[str, str] | None = None) -> Iterator[PostgresDatabase]:
    """The database that the environment names, or one on a server for this run, which may be given settings.

    Raises NoPostgres, never skips.
    """
    parameters = _from_environment()
    if parameters is not None:
        yield PostgresDatabase(parameters)
        return
    server = PostgresServer(settings)
    try:
        yield own_database(server)
    finally:
        server.close()


def own_database(server: PostgresServer) -> PostgresDatabase:
    """The tests' role and database on a new server."""
    with server.connect() as connection:
        connection.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(ROLE)))
        connection.execute(SQL("CREATE DATABASE {} OWNER {}").format(Identifier(DATABASE), Identifier(ROLE)))
    place = {"host": "127.0.0.1", "port": server.port, "dbname": DATABASE, "user": ROLE, "password": PASSWORD}
    return PostgresDatabase(place, server)


def _from_environment() -> dict[str, Any] | None:
    if url := os.environ.get(_URL_VARIABLE):
        return _completed(conninfo_to_dict(url))
    parts = {name: os.environ[variable] for name, variable in _PARTS.items() if os.environ.get(variable)}
    if "host" not in parts:
        return None
    if "test" not in parts.get("dbname", ""):
        raise NoPostgres(
            "POSTGRES_HOST is set, but the tests fill and empty only a database whose name contains 'test': set "
            "POSTGRES_DB to one, or unset POSTGRES_HOST and let the tests start a server of their own"
        )
    return _completed(parts)


def _completed(parameters: dict[str, Any]) -> dict[str, Any]:
    defaults = {
        "host": "127.0.0.1",
        "port": 5432,
        "user": os.environ.get("PGUSER") or os.environ.get("USER", "postgres"),
    }
    completed = defaults | parameters
    return {"dbname": completed["user"], **completed}
