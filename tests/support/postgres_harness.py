"""The contract's harness for PostgreSQL: a schema a test, behind a proxy, on a server that may be broken."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from cryptostore import Account, Key, Record, fields_of
from cryptostore_contract.harness import Ability, Harness
from cryptostore_contract.proxy import Proxy
from postgres_database import PostgresDatabase
from postgres_server import PostgresServer

_SMALL_DISK: Final = 16 * 1024 * 1024
_TABLESPACE: Final = "small"


class ExternalPostgresHarness(Harness):
    """For a server that is not ours to stop."""

    name: ClassVar[str] = "postgres"
    abilities: ClassVar[frozenset[Ability]] = frozenset(
        {
            Ability.REOPEN,
            Ability.OTHER_PROCESS,
            Ability.PROCESSES_AT_ONCE,
            Ability.RAW_STORAGE,
            Ability.DAMAGE,
            Ability.NEWER_SCHEMA,
            Ability.CUT_CONNECTIONS,
            Ability.SILENT_NETWORK,
        }
    )

    def __init__(self, database: PostgresDatabase) -> None:
        self.database: Final = database
        self.schema: Final = database.new_schema()
        self.proxy: Final = Proxy(database.address)

    @property
    def url(self) -> str:
        return self.database.url(self.schema, self.proxy.port)

    def raw_storage(self) -> bytes:
        with self.database.connect() as connection:
            rows = [row for table in self._tables(connection) for row in self._rows(connection, table)]
        return b"\n".join(value if isinstance(value, bytes) else str(value).encode() for row in rows for value in row)

    def damage(self, account: Account, kind: type[Record], key: Key) -> None:
        others = [field.name for field in fields_of(kind) if field.name not in kind.key_fields]
        with self.database.connect() as connection:
            table = Identifier(self.schema, kind.kind_name)
            if others:
                column = Identifier(others[-1])
                connection.execute(SQL("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL").format(table, column))
                change = SQL("{} = NULL").format(column)
            else:
                # A kind of nothing but its key: an identifier longer than any may be.
                change = SQL("{} = repeat('x', 300)").format(Identifier(kind.key_fields[-1]))
            condition = SQL(" AND ").join(
                [self._account_is(), *(SQL("{} = %s").format(Identifier(name)) for name in kind.key_fields)]
            )
            statement = SQL("UPDATE {} SET {} WHERE {}").format(table, change, condition)
            changed = connection.execute(statement, [account.user_id, account.device_id, *key]).rowcount
        assert changed == 1, f"there was no {kind.kind_name} to damage"

    def claim_newer_schema(self) -> None:
        with self.database.connect() as connection:
            table = Identifier(self.schema, "schema_version")
            connection.execute(SQL("UPDATE {} SET version = 1000, min_compatible = 1000").format(table))

    def cut_connections(self) -> None:
        self.proxy.cut()

    @contextlib.contextmanager
    def silent_network(self) -> Iterator[None]:
        with self.proxy.silent():
            yield

    def close(self) -> None:
        self.proxy.close()
        self.database.drop_schema(self.schema)

    def _account_is(self) -> Composed:
        table = Identifier(self.schema, "account")
        return SQL("account_id = (SELECT id FROM {} WHERE user_id = %s AND device_id = %s)").format(table)

    def _tables(self, connection: psycopg.Connection) -> list[str]:
        statement = "SELECT tablename FROM pg_tables WHERE schemaname = %s"
        return [name for (name,) in connection.execute(statement, [self.schema]).fetchall()]

    def _rows(self, connection: psycopg.Connection, table: str) -> list[tuple[object, ...]]:
        return connection.execute(SQL("SELECT * FROM {}").format(Identifier(self.schema, table))).fetchall()


class PostgresHarness(ExternalPostgresHarness):
    """For a server of the run's own. Without the right to mount, FULL_DISK is not among the abilities."""

    abilities: ClassVar[frozenset[Ability]] = frozenset(Ability)

    def __init__(self, database: PostgresDatabase) -> None:
        super().__init__(database)
        self._small_disk: Path | None = None

    @property
    def server(self) -> PostgresServer:
        """The server under test."""
        assert self.database.server is not None
        return self.database.server

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        folder = self._move_to_small_disk()
        filler = folder / "filler"
        with filler.open("wb") as file, contextlib.suppress(OSError):
            while True:
                os.write(file.fileno(), bytes(4096))
        try:
            yield
        finally:
            filler.unlink()

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        self._set_database("SET default_transaction_read_only = on")
        try:
            yield
        finally:
            self._set_database("RESET default_transaction_read_only")

    @contextlib.contextmanager
    def frozen_server(self) -> Iterator[None]:
        with self.server.frozen():
            yield

    def stop_server(self) -> None:
        self.server.stop()

    def kill_server(self) -> None:
        self.server.kill()

    def start_server(self) -> None:
        self.server.start()

    @contextlib.contextmanager
    def no_free_connections(self) -> Iterator[None]:
        with contextlib.ExitStack() as taken:
            # No client may come back for a connection while they are being taken.
            self.proxy.refuse()
            self.proxy.cut()
            self.database.end_sessions()
            url = self.database.url(self.schema).partition("?")[0]
            with contextlib.suppress(psycopg.OperationalError):
                while True:
                    taken.enter_context(contextlib.closing(psycopg.connect(url)))
            self.proxy.accept()
            yield

    def close(self) -> None:
        self.server.thaw()
        self.server.start()
        try:
            super().close()
        finally:
            if self._small_disk is not None:
                self._remove_small_disk(self._small_disk)

    def _set_database(self, change: str) -> None:
        with self.database.connect() as connection:
            name = Identifier(connection.info.dbname)
            connection.execute(SQL("ALTER DATABASE {} {}").format(name, SQL(change)))
        # Sessions took the setting when they began.
        self.database.end_sessions()

    def _remove_small_disk(self, folder: Path) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(_unmount, folder)
            connection = stack.enter_context(self.database.connect())
            connection.execute(SQL("DROP TABLESPACE {}").format(Identifier(_TABLESPACE)))

    def _move_to_small_disk(self) -> Path:
        if self._small_disk is None:
            self._small_disk = self.server.folder / _TABLESPACE
            _mount(self._small_disk)
            with self.database.connect() as connection:
                connection.execute(
                    SQL("CREATE TABLESPACE {} LOCATION {}").format(Identifier(_TABLESPACE), str(self._small_disk))
                )
        with self.database.connect() as connection:
            for table in self._tables(connection):
                self._move(connection, table)
        return self._small_disk

    def _move(self, connection: psycopg.Connection, table: str) -> None:
        name, space = Identifier(self.schema, table), Identifier(_TABLESPACE)
        connection.execute(SQL("ALTER TABLE {} SET TABLESPACE {}").format(name, space))
        indexes = connection.execute(
            "SELECT indexname FROM pg_indexes WHERE schemaname = %s AND tablename = %s", [self.schema, table]
        )
        for (index,) in indexes.fetchall():
            connection.execute(SQL("ALTER INDEX {} SET TABLESPACE {}").format(Identifier(self.schema, index), space))


class UnmountedPostgresHarness(PostgresHarness):
    """For users who may not mount a small disk."""

    abilities: ClassVar[frozenset[Ability]] = frozenset(Ability) - {Ability.FULL_DISK}


def harness_for(database: PostgresDatabase) -> ExternalPostgresHarness:
    """The harness that can do the most with this database."""
    if database.server is None:
        return ExternalPostgresHarness(database)
    return PostgresHarness(database) if _may_mount() else UnmountedPostgresHarness(database)


def _may_mount() -> bool:
    probe = ["unshare", "--mount", "--", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return os.geteuid() == 0 and subprocess.run(probe, capture_output=True, check=False).returncode == 0


def _mount(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    options = ["-t", "tmpfs", "-o", f"size={_SMALL_DISK},mode=0700", "tmpfs"]
    subprocess.run(["mount", *options, str(folder)], check=True, capture_output=True)


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)
    folder.rmdir()
