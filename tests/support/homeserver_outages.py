"""Databases of the end-to-end tests that go away and come back."""

from __future__ import annotations

import resource
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

from homeserver_client import Client
from postgres_database import own_database
from postgres_harness import PostgresHarness
from postgres_server import PostgresServer

#: Seconds that a client gives its database.
DEADLINE: Final = 3


class Outages(ABC):
    """What becomes of all databases whose URLs came from `new_url`."""

    @abstractmethod
    def new_url(self) -> str:
        """A database that was not used before."""

    @abstractmethod
    def away(self) -> AbstractContextManager[None]:
        """Nothing can be written while the context is open."""

    @abstractmethod
    def full(self, client: Client) -> AbstractContextManager[None]:
        """There is no more room for this client while the context is open."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back."""


class SqliteOutages(Outages):
    """A file is away while another program holds its write lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[Path] = []

    def new_url(self) -> str:
        self._files.append(self._folder / f"{uuid4()}.db")
        return f"sqlite:///{self._files[-1]}?deadline={DEADLINE}"

    @contextmanager
    def away(self) -> Iterator[None]:
        with ExitStack() as others:
            for file in self._files:
                other = others.enter_context(closing(sqlite3.connect(file, isolation_level=None)))
                other.execute("BEGIN IMMEDIATE")
            yield

    @contextmanager
    def full(self, client: Client) -> Iterator[None]:
        # A limit on file sizes needs no rights and acts on files that are open; write(2) fails as on a full disk.
        before, most = resource.prlimit(client.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(client.pid, resource.RLIMIT_FSIZE, (0, most))
        try:
            yield
        finally:
            resource.prlimit(client.pid, resource.RLIMIT_FSIZE, (before, most))

    def close(self) -> None:
        """Nothing is left."""


class PostgresOutages(Outages):
    """A server of the test's own, all of whose clients share one schema."""

    def __init__(self) -> None:
        self.server: Final = PostgresServer()
        self._harness = PostgresHarness(own_database(self.server))

    def new_url(self) -> str:
        return f"{self._harness.url}&deadline={DEADLINE}"

    @contextmanager
    def away(self) -> Iterator[None]:
        self.server.stop()
        try:
            yield
        finally:
            self.server.start()

    def full(self, client: Client) -> AbstractContextManager[None]:
        assert self.server.small_disk is not None, "this system lets this user mount no small disk"
        return self._harness.full_disk()

    def read_only(self) -> AbstractContextManager[None]:
        """Writes are refused, as by a standby after a fail-over."""
        return self._harness.read_only()

    def close(self) -> None:
        self._harness.close()
        self.server.close()
