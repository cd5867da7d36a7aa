"""Files of other versions, of nio or of what is made from it: what is not read is named."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from command_line import Run
from cryptostore import ConfigurationError, InboundGroupSession, UnreadableRecord
from databases_in_use import accounts_in
from nio_sources import ALICE, KEY, Client, all_of, edited, fingerprints, import_all, reasons, with_version

LIBOLM: Final[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "nio/libolm_pickles.json").read_text())

#: As matrix-nio made it until April 2019.
OF_2018: Final = """
CREATE TABLE accounts (account BLOB, device_id TEXT UNIQUE, shared INTEGER, user_id TEXT PRIMARY KEY);
CREATE TABLE olm_sessions (session_id TEXT PRIMARY KEY, device_id TEXT, curve_key TEXT, session BLOB);
INSERT INTO accounts VALUES (x'00', 'ALICEPHONE', 1, '@alice:example.org');
"""


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(OF_2018)
    return path


def test_a_file_of_2018_is_named(memory_url: str, old_file: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"matrix-nio of 2018 or 2019.*log in as a new device"):
        import_all(old_file, memory_url)
    assert accounts_in(memory_url) == []


def test_the_command_says_so_too(run: Run, sqlite_url: str, old_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", KEY)
    ended = run("import-nio", old_file, sqlite_url, "--json")
    assert ended.code == 2
    assert "matrix-nio of 2018 or 2019" in ended.err


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


def test_what_another_program_added_is_named(memory_url: str, alice: Client) -> None:
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


def test_a_file_in_wal_mode_behind_a_symbolic_link(
    memory_url: str, alice: Client, folder: Path, tmp_path: Path
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
