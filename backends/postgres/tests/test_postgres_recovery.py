"""One account out of a base backup and the archived log, as it was before it was deleted: by the page about backups."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from psycopg.sql import SQL, Identifier

from cryptostore import KINDS, Account, Changes, Mode, Record, SyncToken, new_pickle_key, open_backend
from cryptostore_contract.ports import free_port
from cryptostore_contract.samples import exact, samples
from postgres_database import DATABASE, own_database
from postgres_roles import ALICES, BOBS, OWNER, Roles
from postgres_server import PostgresServer

PAGE: Final = Path(__file__).parents[3] / "docs" / "backups.md"
RELAY, OTHER = Account("@relay:example.org", "RELAY"), Account("@other:example.org", "OTHER")
KEY: Final = new_pickle_key()
#: The second server asks for it.
PASSWORD: Final = "of the role"
#: Debian and Ubuntu keep them elsewhere, so that no base backup has them.
CONFIGURATION: Final = ("postgresql.conf", "pg_hba.conf", "pg_ident.conf")


@pytest.fixture
def archiving() -> Iterator[PostgresServer]:
    """A server that archives its log as the page says."""
    server = PostgresServer({"archive_mode": "on"})
    try:
        (server.folder / "backups" / "log").mkdir(parents=True)
        server._hand_over(server.folder / "backups")
        server._hand_over(server.folder / "backups" / "log")
        own_database(server)
        [settings] = blocks("ini")
        command = re.search(r"archive_command = '(.*)'", settings)
        assert command is not None
        server.configure({"archive_command": command[1].replace("/backups", f"{server.folder}/backups")})
        yield server
    finally:
        server.close()


def blocks(language: str) -> list[str]:
    """The page's blocks about base backups."""
    text = PAGE.read_text().partition("### A base backup and the log")[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


class Procedure:
    """The page's commands, with the test's places in them."""

    def __init__(self, server: PostgresServer) -> None:
        self.server: Final = server
        self.port: Final = free_port()
        self.time = ""
        self.backup, self.restore, self.copy, self.make_safe, self.end = blocks("sh")

    def run(self, commands: str, *wrapper: str) -> str:
        folder, port = self.server.folder, self.server.port
        for page, here in {
            "/backups": f"{folder}/backups",
            "--host=db.example.org": f"--host={folder} --port={port}",
            "relay@db.example.org/keys": f"{self.relay}@127.0.0.1:{port}/{DATABASE}",
            "relay@127.0.0.1:5433/keys": f"{self.relay}@127.0.0.1:{self.port}/{DATABASE}",
            "-p 5433": f"-p {self.port} -k {folder}",
            "--port=5433": f"--port={self.port}",
            "2026-11-29 14:05:00+00": self.time,
        }.items():
            commands = commands.replace(page, here)
        path = [str(self.server.binaries), str(Path(sys.executable).parent), os.environ["PATH"]]
        done = subprocess.run(
            [*wrapper, "bash", "-euc", commands],
            env={
                **os.environ,
                "PATH": ":".join(path),
                "CRYPTOSTORE_PICKLE_KEY": KEY,
                "COLUMNS": "200",
                "PGPASSWORD": PASSWORD,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    @property
    def relay(self) -> str:
        """The bot's role, as in a URL."""
        return Roles(self.server, "").url(ALICES).partition("//")[2].partition("@")[0]


def test_one_account_comes_back_as_it_was_and_nobody_elses_is_touched(archiving: PostgresServer) -> None:
    roles, page = Roles(archiving, "cryptostore"), Procedure(archiving)
    roles.make()
    with archiving.connect(DATABASE) as connection:
        connection.execute(SQL("ALTER ROLE {} PASSWORD {}").format(Identifier(ALICES), PASSWORD))
    open_backend(roles.url(OWNER)).close()
    records: list[Record] = [record for kind in KINDS for record in samples(kind, 5)]
    with open_backend(roles.url(ALICES)) as relays, open_backend(roles.url(BOBS)) as others:
        relay, other = relays.open_store(RELAY, pickle_key=KEY), others.open_store(OTHER, pickle_key=KEY)
        other.apply(Changes([SyncToken("before")]))
        page.run(page.backup, *archiving.wrapper)
        for name in CONFIGURATION:
            (archiving.folder / "backups" / "base" / name).unlink()
        # In the log alone.
        relay.apply(Changes(records))
        page.time = now(archiving)
        relay.apply(Changes([SyncToken("too late")]))
        relays.delete_account(RELAY)
        other.apply(Changes([SyncToken("after")]))
        try:
            page.run(page.restore, *archiving.wrapper)
            page.run(page.copy)
            assert contents(roles) == sorted(map(repr, map(exact, records)))
            told = page.run(page.make_safe)
            assert f"made safe: {RELAY}" in told
            other.apply(Changes([SyncToken("after all")]))
        finally:
            page.run(page.end, *archiving.wrapper)
        assert other.get(SyncToken, [()]) == {(): SyncToken("after all")}


def test_the_page_writes_to_no_other_folder_than_that_of_the_backups() -> None:
    """To others the user of the server may have no right."""
    assert set(re.findall(r"(?<![\w./:])/\w+", "".join(blocks("sh") + blocks("ini")))) == {"/backups"}


def contents(roles: Roles) -> list[str]:
    """Every record of the bot's only account."""
    with open_backend(roles.url(ALICES)) as backend:
        assert list(backend.accounts()) == [RELAY]
        with backend.open_store(RELAY, Mode.READ, pickle_key=KEY) as store:
            found = [record for kind in KINDS for record in store.select(kind, [()])[()]]
    return sorted(map(repr, map(exact, found)))


def now(server: PostgresServer) -> str:
    """The server's time, between two transactions."""
    time.sleep(0.1)
    with server.connect() as connection:
        row = connection.execute("SELECT (now() AT TIME ZONE 'UTC')::text || '+00'").fetchone()
    time.sleep(0.1)
    assert row is not None
    return str(row[0])
