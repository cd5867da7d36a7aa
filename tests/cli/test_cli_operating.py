"""`cryptostore accounts`, `health` and `migrate`, and what every command does about a database that is not there."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from command_line import Run, run_process
from cryptostore import Account, Changes, FencedOut, SyncToken, TrackedUser, new_pickle_key, open_backend
from cryptostore.cli.exits import ExitCode
from cryptostore.store.ownership import claim_of

ALICE, BOB = Account("@alice:example.org", "A"), Account("@bob:example.org", "B")
KEY, NEW = new_pickle_key(), new_pickle_key()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/keys.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
def filled(url: str) -> str:
    with open_backend(url, owner="the bots\x1b[31m of host 7") as backend:
        with backend.open_store(ALICE, pickle_key=KEY) as store:
            store.apply(Changes([SyncToken("s1"), *[TrackedUser(f"@{number}:x") for number in range(1_200)]]))
        with backend.open_store(BOB, pickle_key=KEY) as store:
            store.apply(Changes([SyncToken("s1")]))
    return url


@pytest.mark.parametrize("command", [("accounts",), ("health",), ("stats",), ("rekey", "--new-pickle-key-env", "NEW")])
def test_a_mistyped_path_is_an_error_and_leaves_nothing_behind(command: tuple[str, ...], tmp_path: Path) -> None:
    ended = run_process(*command, f"sqlite:///{tmp_path}/mistyped.db", env={"NEW": NEW})
    assert ended.code == ExitCode.USAGE
    assert ended.err.splitlines()[-1].startswith(f"error: there is no database {tmp_path}/mistyped.db")
    assert list(tmp_path.iterdir()) == []


def test_a_schema_that_is_not_there_is_an_error_and_is_not_made(postgres_url: str) -> None:
    for _ in range(2):
        ended = run_process("stats", postgres_url)
        assert ended.code == ExitCode.REFUSED
        assert "are missing; with migrate=never" in ended.err


def test_accounts_for_people(filled: str) -> None:
    ended = run_process("accounts", filled)
    assert (ended.code, ended.err) == (0, "")
    assert f"{ALICE}\n  owner    the bots\\x1b[31m of host 7\n  since    " in ended.out
    assert re.search(r"\n  written  20\d\d-\S+ \S+ UTC, in 1 batch\n  holds    1,203 records, ", ended.out)
    assert str(BOB) in ended.out


def test_accounts_for_programs(filled: str) -> None:
    ended = run_process("accounts", filled, "--user-id", ALICE.user_id, "--json")
    (alice,) = ended.document["accounts"]
    assert (alice["user_id"], alice["device_id"]) == (ALICE.user_id, ALICE.device_id)
    assert alice["owner"] == "the bots\x1b[31m of host 7"
    assert (alice["epoch"], alice["batches"]) == (1, 1)
    assert datetime.fromisoformat(alice["since"]) <= datetime.fromisoformat(alice["written_at"]) <= datetime.now(UTC)
    assert {kind: each["rows"] for kind, each in alice["kinds"].items()} == {
        "key_ring 00": 1,
        "sync_token": 1,
        "tracked_user": 1_200,
        "key_ring ff": 1,
    }


def test_an_account_that_was_never_written_to(run: Run, url: str) -> None:
    with open_backend(url, owner="a client that was killed") as backend:
        backend.database.take_over(ALICE.user_id, ALICE.device_id, claim_of("a client that was killed"), 15)
    assert "  written  never\n" in run("accounts", url, "--quick").out
    assert run("accounts", url, "--json").document["accounts"][0]["written_at"] is None


def test_accounts_without_counting(run: Run, filled: str) -> None:
    assert "records" not in run("accounts", filled, "--quick").out
    assert all("kinds" not in each for each in run("accounts", filled, "--quick", "--json").document["accounts"])


def test_accounts_that_are_not_there(run: Run, filled: str) -> None:
    ended = run("accounts", filled, "--user-id", "@none:example.org")
    assert ended.code == ExitCode.USAGE
    assert f"has no such account; it has: {ALICE}, {BOB}" in ended.err


def test_no_accounts(run: Run, url: str) -> None:
    assert run("migrate", url).code == 0
    ended = run("accounts", url)
    assert ended.code == 0
    assert "holds no account; is it the right one?" in ended.err


def test_listing_fences_no_owner(filled: str) -> None:
    with open_backend(filled) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        assert run_process("accounts", filled).code == 0
        store.apply(Changes([SyncToken("s2")]))


def test_health(filled: str) -> None:
    ended = run_process("health", filled, "--json")
    assert ended.code == 0
    assert ended.document["writable"] is True
    assert ended.document["schema"] == 1
    assert ended.document["server"].startswith(("SQLite ", "PostgreSQL "))
    shown = run_process("health", filled)
    assert shown.code == 0
    assert "accepts writes" in shown.out


def test_health_of_a_database_that_cannot_be_written(run: Run, postgres_url: str) -> None:
    assert run("migrate", postgres_url).code == 0
    ended = run("health", f"{postgres_url}&options=-c%20default_transaction_read_only%3Don")
    assert ended.code == ExitCode.CHECK_FAILED
    assert "cannot be written" in ended.out


def test_health_of_a_server_that_is_not_there(run: Run) -> None:
    ended = run("health", "postgresql://me@127.0.0.1:1/db?deadline=0.5")
    assert ended.code == ExitCode.UNAVAILABLE


def test_tables_are_made_once(url: str) -> None:
    first, second = run_process("migrate", url, "--json"), run_process("migrate", url)
    assert first.document["schema"] == 1
    assert first.document["stored_accounts"] == 0
    assert (second.code, second.err) == (0, "")
    assert second.out.endswith(" has tables of schema 1, and 0 accounts\n")


@pytest.mark.parametrize("command", ["accounts", "health", "migrate"])
def test_a_database_in_memory_is_refused(run: Run, command: str) -> None:
    ended = run(command, "memory://")
    assert ended.code == ExitCode.USAGE
    assert "keeps nothing beyond its process" in ended.err


def test_a_command_names_itself_to_the_owner_that_it_fences_out(
    run: Run, filled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", KEY)
    monkeypatch.setenv("NEW", NEW)
    with open_backend(filled) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        assert run("rekey", filled, "--new-pickle-key-env", "NEW").code == 0
        with pytest.raises(FencedOut, match="was taken over by cryptostore rekey on "):
            store.apply(Changes([SyncToken("s2")]))
