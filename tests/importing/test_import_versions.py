"""Files of other versions, of nio or of what is made from it: what is not read is named."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from command_line import Ended, run_process
from cryptostore import ConfigurationError, InboundGroupSession, UnreadableRecord
from cryptostore.cli.exits import ExitCode
from databases_in_use import accounts_in
from nio_sources import ALICE, KEY, Client, all_of, edited, fingerprints, import_all, reasons, with_version

LIBOLM: Final[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "nio/libolm_pickles.json").read_text())

#: The tables of each kind of store before April 2019, from the history of weechat-matrix and matrix-nio.
SCHEMAS: Final[dict[str, list[str]]] = json.loads(Path(__file__).with_name("old_schemas.json").read_text())


def old_file(folder: Path, kind: str) -> Path:
    """A file of this kind with an account, of whose row every column has text."""
    path = folder / "old.db"
    with closing(sqlite3.connect(path)) as connection:
        for statement in SCHEMAS[kind]:
            connection.execute(statement)
        (accounts,) = {"accounts", "olmaccount"} & {
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        columns = connection.execute(f"PRAGMA table_info({accounts})").fetchall()
        row = [1 if name == "shared" else f"the {name}" for _, name, *_ in columns]
        connection.execute(f"INSERT INTO {accounts} VALUES ({', '.join('?' * len(row))})", row)
        connection.commit()
    return path


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_file_of_2018_or_2019_is_named(memory_url: str, tmp_path: Path, kind: str) -> None:
    path = old_file(tmp_path, kind)
    before = fingerprints(tmp_path)
    with pytest.raises(ConfigurationError, match=r"matrix-nio of 2018 or 2019.*log in as a new device") as refused:
        import_all(path, memory_url)
    assert "`cryptostore import-keys`" in str(refused.value)
    assert accounts_in(memory_url) == []
    assert fingerprints(tmp_path) == before


def refused(source: Path, folder: Path, key: str = KEY) -> Ended:
    """What a person sees whose file is not imported: one line, and no database."""
    ended = run_process("import-nio", source, f"sqlite:///{folder}/keys.db", env={"CRYPTOSTORE_PICKLE_KEY": key})
    assert ended.code != 0
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert not (folder / "keys.db").exists()
    return ended


def test_the_command_says_so_too(tmp_path: Path) -> None:
    ended = refused(old_file(tmp_path, "matrix-nio, March 2019"), tmp_path)
    assert ended.code == ExitCode.USAGE
    assert "was written by weechat-matrix or matrix-nio of 2018 or 2019" in ended.err


def test_the_command_says_what_a_whole_account_of_an_old_libolm_needs(alice: Client, tmp_path: Path) -> None:
    old = with_version(LIBOLM["account"]["pickle"], LIBOLM["pickle_key"], 2)
    with edited(alice.path) as connection:
        connection.execute("UPDATE accounts SET account = ?", (old,))
    ended = refused(alice.path, tmp_path, LIBOLM["pickle_key"])
    assert "let a client with matrix-nio before 0.26 and python-olm 3.2 use it once" in ended.err
    assert "damaged" not in ended.err


@pytest.mark.parametrize("version", [2, 3])
def test_an_account_of_an_old_libolm_is_named(memory_url: str, alice: Client, version: int) -> None:
    old = with_version(LIBOLM["account"]["pickle"], LIBOLM["pickle_key"], version)
    with edited(alice.path) as connection:
        connection.execute("UPDATE accounts SET account = ?", (old,))
    with pytest.raises(UnreadableRecord, match=rf"pickle of version {version}, of an old libolm.*python-olm 3\.2"):
        import_all(alice.path, memory_url, LIBOLM["pickle_key"])
    assert accounts_in(memory_url) == []


def test_a_session_of_an_old_libolm_is_named(memory_url: str, alice: Client) -> None:
    group = LIBOLM["group_session"]
    with edited(alice.path) as connection:
        connection.execute("UPDATE accounts SET account = ?", (LIBOLM["account"]["pickle"],))
        connection.execute(
            "INSERT INTO megolminboundsessions (sender_key, account_id, fp_key, room_id, session, session_id)"
            " VALUES ('curve', 1, 'ed', '!room:example.org', ?, ?)",
            (with_version(group["pickle"], LIBOLM["pickle_key"], 1), group["id"]),
        )
    findings = import_all(alice.path, memory_url, LIBOLM["pickle_key"])
    (reason,) = reasons(findings, "Megolm session")
    assert reason.startswith("it is a pickle of version 1, of an old libolm")


def test_what_another_program_added_is_named(memory_url: str, sqlite_url: str, alice: Client) -> None:
    with edited(alice.path) as connection:
        connection.execute("CREATE TABLE pendingevents (id INTEGER PRIMARY KEY, event TEXT)")
        connection.execute("CREATE TABLE emptytable (id INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO pendingevents (event) VALUES ('{}'), ('{}')")
        connection.execute("UPDATE storeversion SET version = 10")
    findings = import_all(alice.path, memory_url)
    assert [(each.kind, each.ids) for each in findings] == [("pendingevents", ("2 rows",)), ("file", ("version 10",))]
    assert reasons(findings, "pendingevents", None) == {
        "matrix-nio has no such table, and its rows stay behind": ("2 rows",)
    }
    ended = run_process("import-nio", alice.path, sqlite_url, env={"CRYPTOSTORE_PICKLE_KEY": KEY})
    assert (ended.code, ended.err) == (ExitCode.CHECK_FAILED, "")
    assert "- pendingevents, 1: matrix-nio has no such table, and its rows stay behind: 2 rows" in ended.out
    assert accounts_in(sqlite_url) == [ALICE]


def test_a_file_in_wal_mode_behind_a_symbolic_link(
    memory_url: str, sqlite_url: str, alice: Client, folder: Path, tmp_path: Path
) -> None:
    alice.store.database.execute_sql("PRAGMA journal_mode = WAL")
    alice.store.database.execute_sql("PRAGMA wal_autocheckpoint = 0")
    _, inbound = alice.received_session()
    before = fingerprints(folder)
    link = tmp_path / "link.db"
    link.symlink_to(alice.path)
    assert not import_all(link, memory_url)
    assert [session.session_id for session in all_of(memory_url, InboundGroupSession)] == [inbound.id]
    assert fingerprints(folder) == before
    assert ALICE in accounts_in(memory_url)
    ended = run_process("import-nio", link, sqlite_url, "--json", env={"CRYPTOSTORE_PICKLE_KEY": KEY})
    assert ended.code == 0, ended.err
    assert ended.document["complete"]
    assert ended.document["accounts"][0]["imported"]["inbound_group_session"] == 1
