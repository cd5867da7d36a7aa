"""Schemas for tests, beside that which a URL names, and none left behind."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Final
from uuid import uuid4

import psycopg
from psycopg.sql import SQL, Identifier

from cryptostore.errors import BackendUnavailable
from cryptostore.plugins.urls import options_of

from .options import parse

#: Options in a URL that no backend is given.
_CORES_OPTIONS: Final = frozenset({"deadline", "owner"})

#: Seconds that the server is given to end sessions.
_PATIENCE: Final = 30.0
_PAUSE: Final = 0.05


class Schemas:
    """Schemas of the database that a URL names, all with one beginning."""

    def __init__(self, url: str, name: str) -> None:
        self._url: Final = url
        self._name: Final = name
        options = {name: value for name, value in options_of(url, {}).items() if name not in _CORES_OPTIONS}
        self._connection: Final = parse(url, options).connection

    def new_url(self) -> str:
        """The URL of a schema that is not there yet."""
        base, _, query = self._url.partition("?")
        ours = ("schema=", "application_name=")
        kept = [option for option in query.split("&") if option and not option.startswith(ours)]
        named = [f"application_name={self._name}", f"schema={self._name}_{uuid4().hex[:12]}"]
        return f"{base}?{'&'.join([*kept, *named])}"

    def remove(self, url: str) -> None:
        """Drop one schema. Raises BackendUnavailable."""
        schema = url.rpartition("schema=")[2]
        with self._connected(schema) as connection:
            _drop(connection, schema)

    def clear(self) -> None:
        """Drop every schema, and first end the sessions in which one could still be made. Raises BackendUnavailable."""
        with self._connected(self._name) as connection:
            _end_sessions(connection, self._name)
            _drop(connection, self._name)

    @contextlib.contextmanager
    def _connected(self, beginning: str) -> Iterator[psycopg.Connection]:
        try:
            with psycopg.connect(**self._connection, autocommit=True) as connection:
                yield connection
        except psycopg.Error as error:
            raise BackendUnavailable(f"schemas named {beginning}… could not be dropped; drop them by hand") from error


def _end_sessions(connection: psycopg.Connection, application: str) -> None:
    """End the sessions of processes that are gone: the server still carries out what it was sent, such as a COMMIT."""
    ends = time.monotonic() + _PATIENCE
    # A pooler may have given us one of those sessions.
    named = (
        "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"
        " WHERE application_name OPERATOR(pg_catalog.=) %s AND pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()"
    )
    while connection.execute(named, [application]).fetchall() and time.monotonic() < ends:
        time.sleep(_PAUSE)


def _drop(connection: psycopg.Connection, beginning: str) -> None:
    named = "SELECT nspname FROM pg_catalog.pg_namespace WHERE pg_catalog.starts_with(nspname::pg_catalog.text, %s)"
    for (schema,) in connection.execute(named, [beginning]).fetchall():
        connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schema)))
