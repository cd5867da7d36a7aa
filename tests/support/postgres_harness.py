"""The contract's harness for PostgreSQL: a schema a test, behind a proxy, on a server that may be broken."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import ClassVar, Final
from urllib.parse import quote

import psycopg
from psycopg.sql import SQL, Identifier

import postgres_golden
from cryptostore import Account
from cryptostore_contract.harness import Ability, Encrypted
from cryptostore_contract.server import OwnServerHarness, ServerHarness
from postgres_database import ROLE, PostgresDatabase
from postgres_server import SMALL_DISK, PostgresServer

_TABLESPACE: Final = "small"


class ExternalPostgresHarness(ServerHarness):
    """For a server that is not ours to stop."""

    name: ClassVar[str] = "postgres"
    abilities: ClassVar[frozenset[Ability]] = ServerHarness.abilities | {
        *(Ability.RAW_STORAGE, Ability.NEWER_SCHEMA, Ability.OLDER_SCHEMA),
        *(Ability.END_SESSIONS, Ability.ACCOUNT_LOCK),
    }

    def __init__(self, database: PostgresDatabase) -> None:
        super().__init__(database.address)
        self.database: Final = database
        self.schema: Final = database.new_schema()

    @property
    def url(self) -> str:
        return self.database.url(self.schema, self.proxy.port)

    def end_sessions(self) -> None:
        self.database.end_sessions()

    def raw_storage(self) -> bytes:
        with self.database.connect() as connection:
            rows = [row for table in self._tables(connection) for row in self._rows(connection, table)]
        return b"\n".join(value if isinstance(value, bytes) else str(value).encode() for row in rows for value in row)

    def claim_newer_schema(self) -> None:
        with self.database.connect() as connection:
            table = Identifier(self.schema, "schema_version")
            connection.execute(SQL("UPDATE {} SET version = 1000, min_compatible = 1000").format(table))

    def place_golden(self, version: int) -> None:
        self.database.drop_schema(self.schema)
        postgres_golden.load(self.database, version, self.schema)

    @contextlib.contextmanager
    def locked_account(self, account: Account) -> Iterator[Callable[[], int]]:
        lock = SQL("SELECT FROM {} JOIN {} ON account_id = id WHERE user_id = %s AND device_id = %s FOR UPDATE OF {}")
        tables = [Identifier(self.schema, name) for name in ("account", "ownership")]
        with self.database.connect() as connection, connection.transaction():
            names = [account.user_id, account.device_id]
            found = connection.execute(lock.format(*tables, Identifier("ownership")), names)
            assert found.rowcount == 1, f"{account} is not there"
            yield self._waiting_sessions

    def drop(self) -> None:
        self.database.drop_schema(self.schema)

    def _waiting_sessions(self) -> int:
        with self.database.connect() as connection:
            named = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            return connection.execute(named).rowcount

    def _tables(self, connection: psycopg.Connection) -> list[str]:
        statement = "SELECT tablename FROM pg_tables WHERE schemaname = %s"
        return [name for (name,) in connection.execute(statement, [self.schema]).fetchall()]

    def _rows(self, connection: psycopg.Connection, table: str) -> list[tuple[object, ...]]:
        return connection.execute(SQL("SELECT * FROM {}").format(Identifier(self.schema, table))).fetchall()


class PostgresHarness(OwnServerHarness, ExternalPostgresHarness):
    """For a server of the run's own."""

    abilities: ClassVar[frozenset[Ability]] = frozenset(Ability)

    @property
    def server(self) -> PostgresServer:
        """The server under test."""
        assert self.database.server is not None
        return self.database.server

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        self._move_to_small_disk()
        self._run_on_server(f"head -c {SMALL_DISK} /dev/zero > {self._filler}; true")
        try:
            yield
        finally:
            self._run_on_server(f"rm {self._filler}")

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        self._set_database("SET default_transaction_read_only = on")
        try:
            yield
        finally:
            self._set_database("RESET default_transaction_read_only")

    @contextlib.contextmanager
    def no_free_connections(self) -> Iterator[None]:
        with contextlib.ExitStack() as taken:
            # No client may come back for a connection while they are being taken.
            self._proxy.refuse()
            self._proxy.cut()
            self.database.end_sessions()
            url = self.database.url(self.schema).partition("?")[0]
            with contextlib.suppress(psycopg.OperationalError):
                while True:
                    taken.enter_context(contextlib.closing(psycopg.connect(url)))
            self._proxy.accept()
            yield

    def open_transactions(self) -> int:
        with self.database.connect() as connection:
            named = "SELECT FROM pg_stat_activity WHERE usename = %s AND xact_start IS NOT NULL"
            return connection.execute(named, [ROLE]).rowcount

    @contextlib.contextmanager
    def standby_away(self) -> Iterator[None]:
        self.server.configure({"synchronous_standby_names": "nobody"})
        with self.server.connect() as connection:
            # The checkpointer is who lets commits wait. It is told last, perhaps in the middle of the first of these.
            for _ in range(2):
                connection.execute("CHECKPOINT")
        try:
            yield
        finally:
            self.server.configure({"synchronous_standby_names": ""})

    @contextlib.contextmanager
    def undurable(self) -> Iterator[None]:
        with self.server.set_to({"fsync": "off"}):
            yield

    @contextlib.contextmanager
    def encrypted(self) -> Iterator[Encrypted]:
        with self.server.only_encrypted() as (trusted, distrusted):
            # Of tests before this one; the server may not have noticed their end yet.
            self.database.end_sessions()
            trusting = f"{self.url}&sslmode=verify-full&sslrootcert={quote(str(trusted))}"
            yield Encrypted(
                trusting=trusting,
                misnamed=trusting.replace("127.0.0.1", "localhost"),
                distrusting=f"{self.url}&sslmode=verify-full&sslrootcert={quote(str(distrusted))}",
                plain=f"{self.url}&sslmode=disable",
                connections=self._are_encrypted,
            )

    def close(self) -> None:
        super().close()
        with self.database.connect() as connection:
            connection.execute(SQL("DROP TABLESPACE IF EXISTS {}").format(Identifier(_TABLESPACE)))

    def _are_encrypted(self) -> list[bool]:
        with self.database.connect() as connection:
            answer = connection.execute(
                "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = %s", [ROLE]
            )
            return [encrypted for (encrypted,) in answer.fetchall()]

    @property
    def _filler(self) -> str:
        return f"{self.server.small_disk}/filler"

    def _run_on_server(self, command: str) -> None:
        # Only the server sees its small disk.
        with self.database.connect() as connection:
            connection.execute(SQL("COPY (SELECT) TO PROGRAM {}").format(command))

    def _set_database(self, change: str) -> None:
        with self.database.connect() as connection:
            name = Identifier(connection.info.dbname)
            connection.execute(SQL("ALTER DATABASE {} {}").format(name, SQL(change)))
        # Sessions took the setting when they began.
        self.database.end_sessions()

    def _move_to_small_disk(self) -> None:
        with self.database.connect() as connection:
            found = connection.execute("SELECT 1 FROM pg_tablespace WHERE spcname = %s", [_TABLESPACE]).fetchone()
            if found is None:
                create = SQL("CREATE TABLESPACE {} LOCATION {}")
                connection.execute(create.format(Identifier(_TABLESPACE), str(self.server.small_disk)))
            for table in self._tables(connection):
                self._move(connection, table)

    def _move(self, connection: psycopg.Connection, table: str) -> None:
        name, space = Identifier(self.schema, table), Identifier(_TABLESPACE)
        connection.execute(SQL("ALTER TABLE {} SET TABLESPACE {}").format(name, space))
        indexes = connection.execute(
            "SELECT indexname FROM pg_indexes WHERE schemaname = %s AND tablename = %s", [self.schema, table]
        )
        for (index,) in indexes.fetchall():
            connection.execute(SQL("ALTER INDEX {} SET TABLESPACE {}").format(Identifier(self.schema, index), space))


def harness_without(lacking: frozenset[Ability]) -> type[PostgresHarness]:
    """The harness for a server of the run's own that cannot do everything."""

    class LesserPostgresHarness(PostgresHarness):
        abilities: ClassVar[frozenset[Ability]] = PostgresHarness.abilities - lacking

    return LesserPostgresHarness


def lacking_on(server: PostgresServer) -> frozenset[Ability]:
    """What this system, or these binaries, do not allow."""
    # The first where this system lets us mount no small disk, the second where PostgreSQL was built without TLS.
    found = {Ability.FULL_DISK: server.small_disk is None, Ability.TLS: not server.speaks_tls}
    return frozenset(ability for ability, is_lacking in found.items() if is_lacking)


def harness_for(database: PostgresDatabase) -> ExternalPostgresHarness:
    """The harness that can do the most with this database."""
    if database.server is None:
        return ExternalPostgresHarness(database)
    return harness_without(lacking_on(database.server))(database)
