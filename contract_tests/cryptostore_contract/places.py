"""Somewhere in a live database for the suite to work in: empty databases beside what is there, and none left behind."""

from __future__ import annotations

import contextlib
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote, urlsplit
from uuid import uuid4

from cryptostore import BackendUnavailable, ConfigurationError
from cryptostore.plugins.urls import scheme_of

if TYPE_CHECKING:
    import psycopg

#: Before every name that the suite gives to a folder or a schema.
_PREFIX: Final = "cryptostore_contract_"

#: Seconds that the server is given to end sessions.
_PATIENCE: Final = 30.0

#: Options in a PostgreSQL URL that are the backend's, and that the driver does not know.
_BACKENDS_OPTIONS: Final = frozenset({"deadline", "owner", "schema", "migrate", "pool_size"})


class Place(ABC):
    """Where one run of the suite makes its databases. Any process makes the same place of the same URL and run."""

    def __init__(self, url: str, run: str) -> None:
        self.url: Final = url
        self.name: Final = f"{_PREFIX}{run}"

    @abstractmethod
    def new_url(self) -> str:
        """The URL of a database that is not there yet."""

    @abstractmethod
    def prepare(self) -> None:
        """Make room, once for a run. Raises ConfigurationError."""

    @abstractmethod
    def remove(self, url: str) -> None:
        """Remove one database."""

    @abstractmethod
    def clear(self) -> None:
        """Remove all that the run has made."""


class MemoryPlace(Place):
    """Names in this process."""

    def new_url(self) -> str:
        return f"memory://{uuid4()}"

    def prepare(self) -> None:
        pass  # a name is free

    def remove(self, url: str) -> None:
        pass  # a few dictionaries under a name that is not used again

    def clear(self) -> None:
        pass  # gone with the process


class FolderPlace(Place):
    """A folder beside the file or folder that the URL names, on the same disk."""

    def new_url(self) -> str:
        parts = urlsplit(self.url)
        path = quote(str(self._folder / uuid4().hex))
        return f"{parts.scheme}:///{path}" + (f"?{parts.query}" if parts.query else "")

    def prepare(self) -> None:
        try:
            self._folder.mkdir(mode=0o700)
        except OSError as error:
            raise ConfigurationError(
                f"the suite cannot make a folder of its own in {self._folder.parent}: {error.strerror}; "
                "name a path in a folder that exists and may be written"
            ) from error

    def remove(self, url: str) -> None:
        name = Path(unquote(urlsplit(url).path)).name
        for path in self._folder.glob(f"{name}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def clear(self) -> None:
        shutil.rmtree(self._folder)

    @property
    def _folder(self) -> Path:
        return Path(unquote(urlsplit(self.url).path[1:])).absolute().parent / f".{self.name}"


class SchemaPlace(Place):
    """Schemas of a PostgreSQL database."""

    def new_url(self) -> str:
        schema = f"{self.name}_{uuid4().hex[:12]}"
        others = self._options(without=frozenset({"schema", "application_name"}))
        return f"{self._base}?{'&'.join([*others, f'application_name={self.name}', f'schema={schema}'])}"

    def prepare(self) -> None:
        pass  # a backend makes its schema when it first opens one

    def remove(self, url: str) -> None:
        schema = url.rpartition("schema=")[2]
        with self._connected(schema) as connection:
            _drop(connection, schema)

    def clear(self) -> None:
        with self._connected(self.name) as connection:
            _end_sessions(connection, self.name)
            _drop(connection, self.name)

    @property
    def _base(self) -> str:
        return self.url.partition("?")[0]

    def _options(self, without: frozenset[str]) -> list[str]:
        options = self.url.partition("?")[2].split("&")
        return [option for option in options if option and option.partition("=")[0] not in without]

    @contextlib.contextmanager
    def _connected(self, beginning: str) -> Iterator[psycopg.Connection]:
        import psycopg  # a backend's driver, which is there where its URL could be opened

        url = f"{self._base}?{'&'.join(self._options(without=_BACKENDS_OPTIONS))}"
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                yield connection
        except psycopg.OperationalError as error:
            raise BackendUnavailable(f"schemas named {beginning}… could not be dropped; drop them by hand") from error


def _end_sessions(connection: psycopg.Connection, application: str) -> None:
    """End the sessions of processes that are gone: the server still carries out what it was sent, such as a COMMIT."""
    ends = time.monotonic() + _PATIENCE
    named = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
    while connection.execute(named, [application]).fetchall() and time.monotonic() < ends:
        time.sleep(0.05)


def _drop(connection: psycopg.Connection, beginning: str) -> None:
    from psycopg.sql import SQL, Identifier

    named = "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, %s)"
    for (schema,) in connection.execute(named, [beginning]).fetchall():
        connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schema)))


def place_for(url: str, run: str) -> Place:
    """The place that a URL calls for. Raises ConfigurationError for one in which the suite cannot make its own."""
    scheme = scheme_of(url)
    if scheme == "memory":
        return MemoryPlace(url, run)
    if scheme in ("postgresql", "postgres"):
        return SchemaPlace(url, run)
    parts = urlsplit(url)
    if parts.netloc or len(parts.path) < 2:
        raise ConfigurationError(
            f"the suite knows how to make databases of its own for PostgreSQL and for paths ({scheme}:///PATH), "
            "and would not touch yours; write a Harness to test another kind"
        )
    return FolderPlace(url, run)
