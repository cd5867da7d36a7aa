"""`cryptostore stats` and `cryptostore new-key`."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from command_line import Run
from cryptostore import Account, Changes, Row, SyncToken, TrackedUser, new_pickle_key, open_backend
from cryptostore.cli.exits import ExitCode
from cryptostore.store.pickle_keys import is_generated

ALICE, BOB = Account("@alice:example.org", "A"), Account("@bob:example.org", "B")
KEY = new_pickle_key()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/keys.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
def filled(url: str) -> str:
    with open_backend(url) as backend:
        with backend.open_store(ALICE, pickle_key=KEY) as store:
            store.apply(Changes([SyncToken("s1"), *[TrackedUser(f"@{number}:x") for number in range(1_200)]]))
            store.put_rows([Row(b"\xc8a kind of a later version", b"12345")])
        with backend.open_store(BOB, pickle_key=KEY) as store:
            store.apply(Changes([SyncToken("s1")]))
    return url


def test_programs_get_rows_and_bytes_of_each_kind(run: Run, filled: str) -> None:
    ended = run("stats", filled, "--json")
    assert (ended.code, ended.err) == (0, "")
    alice, bob = ended.document["accounts"]
    assert (alice["user_id"], alice["device_id"]) == (ALICE.user_id, ALICE.device_id)
    rows = {kind: counted["rows"] for kind, counted in alice["kinds"].items()}
    assert rows == {"key_ring 00": 1, "sync_token": 1, "tracked_user": 1_200, "kind 200": 1, "key_ring ff": 1}
    assert alice["kinds"]["kind 200"]["bytes"] == 26 + 5
    assert bob["kinds"]["sync_token"]["rows"] == 1


def test_people_get_a_table(run: Run, filled: str) -> None:
    ended = run("stats", filled, "--user-id", ALICE.user_id)
    assert ended.code == 0
    assert "tracked_user" in ended.out
    assert "1,200" in ended.out
    assert str(ALICE) in ended.out
    assert str(BOB) not in ended.out


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["table", "json"])
def test_a_database_without_accounts_is_told(run: Run, url: str, options: tuple[str, ...]) -> None:
    open_backend(url).close()
    ended = run("stats", url, *options)
    assert ended.code == 0
    assert "holds no account; is it the right one?" in ended.err


def test_people_see_an_account_without_rows(run: Run, url: str) -> None:
    with open_backend(url) as backend:
        backend.open_store(ALICE, pickle_key=KEY).close()
    ended = run("stats", url)
    assert ended.code == 0
    assert str(ALICE) in ended.out


def test_it_takes_nothing_over(run: Run, filled: str) -> None:
    with open_backend(filled) as backend, backend.open_store(ALICE, pickle_key=KEY) as owner:
        assert run("stats", filled).code == 0
        owner.apply(Changes([SyncToken("s2")]))


def test_an_account_that_is_not_there_is_named(run: Run, filled: str) -> None:
    ended = run("stats", filled, "--device-id", "NONE")
    assert ended.code == ExitCode.USAGE
    assert f"has no such account; it has: {ALICE}, {BOB}" in ended.err


def test_an_empty_database_has_no_rows(run: Run, url: str) -> None:
    open_backend(url).close()
    ended = run("stats", url, "--json")
    assert ended.code == 0
    assert ended.document["accounts"] == []


def test_a_new_key_is_written_to_standard_output_alone(run: Run) -> None:
    first, second = run("new-key"), run("new-key")
    assert (first.code, first.err) == (0, "")
    assert is_generated(first.out.strip())
    assert first.out != second.out


def test_the_folder_is_flushed_with_its_new_key(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_ino))
    file = tmp_path / "pickle.key"
    run("new-key", "--file", file)
    assert flushed == [file.stat().st_ino, tmp_path.stat().st_ino]


def test_a_new_key_in_a_file_is_private_and_never_over_another(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "pickle.key"
    ended = run("new-key", "--file", file)
    assert (ended.code, ended.out) == (0, "")
    assert is_generated(file.read_text().strip())
    assert file.read_text().strip() not in ended.err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    kept = file.read_text()
    again = run("new-key", "--file", file)
    assert again.code == ExitCode.USAGE
    assert "cannot write a new pickle key to" in again.err
    assert file.read_text() == kept
