"""Roles in production, as `cryptostore postgres-roles` makes them: one owns the tables, the others are bots'."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from command_line import run_process
from cryptostore import open_backend
from cryptostore_postgres.roles import statements
from postgres_database import DATABASE
from postgres_server import SUPERUSER, PostgresServer

#: Names that have to be quoted, each in another way.
OWNER, ALICES, BOBS = 'keys "owner"', "alice's $$ bot", "Bob\\s-bot"


class Roles(NamedTuple):
    """A schema of a server whose tables `OWNER` made, and which `ALICES` and `BOBS` use."""

    server: PostgresServer
    schema: str

    def url(self, role: str, port: int | None = None) -> str:
        """As in the configuration of a bot: it makes no tables."""
        place = f"127.0.0.1:{port or self.server.port}/{DATABASE}?schema={self.schema}"
        return f"postgresql://{quote(role, safe='')}@{place}{'' if role == OWNER else '&migrate=never'}"

    def connect(self, role: str) -> psycopg.Connection:
        """A session of a role without our program."""
        return psycopg.connect(self.url(role).partition("?")[0], autocommit=True)

    def script(self) -> str:
        """What the command writes."""
        words = ["postgres-roles", "--owner", OWNER, "--bot", ALICES, "--bot", BOBS, "--schema", self.schema]
        return run_process(*words).out

    def make(self, admin: str = SUPERUSER) -> None:
        """Do what the script says, without a process."""
        made = statements(Identifier(OWNER), [Identifier(ALICES), Identifier(BOBS)], self.schema)
        with psycopg.connect(self.server.url(DATABASE, admin), autocommit=True) as connection:
            connection.execute(SQL("; ").join(made))

    def remove(self) -> None:
        """Drop the roles, and all that they own."""
        with self.server.connect(DATABASE) as connection:
            for role in (OWNER, ALICES, BOBS):
                connection.execute(SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}").format(Identifier(role)))


@pytest.fixture
def roles(server: PostgresServer, schema: str) -> Iterator[Roles]:
    """The roles, and the tables, which are empty."""
    made = Roles(server, schema)
    made.make()
    open_backend(made.url(OWNER)).close()
    yield made
    made.remove()
