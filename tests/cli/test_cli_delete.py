"""`cryptostore delete`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from command_line import Run, run_process
from cryptostore import Account, Changes, SyncToken, new_pickle_key, open_backend
from cryptostore.cli.exits import ExitCode
from databases_in_use import accounts_in, written_to

ALICE, BOB = Account("@alice:example.org", "A"), Account("@bob:example.org", "B")
KEY = new_pickle_key()
ALICES = ("--user-id", ALICE.user_id)


@pytest.fixture(params=["sqlite", "postgres"])
def filled(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/keys.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with open_backend(url) as backend:
        for account in (ALICE, BOB):
            with backend.open_store(account, pickle_key=KEY) as store:
                store.apply(Changes([SyncToken("s1")]))
    return str(url)


def test_one_account_is_deleted_and_no_other(filled: str) -> None:
    ended = run_process("delete", filled, *ALICES, "--yes", "--watch", "0.5")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"deleted {ALICE}, which had 3 records, from ")
    assert accounts_in(filled) == [BOB]


def test_programs_get_json(run: Run, filled: str) -> None:
    ended = run("delete", filled, *ALICES, "--yes", "--json")
    assert ended.document["user_id"] == ALICE.user_id
    assert ended.document["deleted_rows"] == 3


def test_one_that_is_written_to_is_kept(filled: str) -> None:
    with written_to(filled, ALICE, KEY) as fenced:
        ended = run_process("delete", filled, *ALICES, "--yes", "--watch", "60")
    assert (ended.code, fenced) == (ExitCode.USAGE, [])
    assert f"{ALICE} is in use: " in ended.err
    assert accounts_in(filled) == [ALICE, BOB]


def test_it_is_deleted_while_it_is_in_use_if_told(filled: str) -> None:
    with open_backend(filled) as backend, backend.open_store(ALICE, pickle_key=KEY):
        assert run_process("delete", filled, *ALICES, "--yes", "--even-if-used").code == 0
    assert accounts_in(filled) == [BOB]


def test_without_a_terminal_it_must_be_told_not_to_ask(filled: str) -> None:
    ended = run_process("delete", filled, *ALICES)
    assert ended.code == ExitCode.USAGE
    assert "give --yes" in ended.err
    assert accounts_in(filled) == [ALICE, BOB]


@pytest.mark.parametrize(("answer", "code", "left"), [(True, 0, [BOB]), (False, ExitCode.CHECK_FAILED, [ALICE, BOB])])
def test_it_asks(
    run: Run, filled: str, answer: bool, code: int, left: list[Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    questions: list[str] = []

    def confirm(question: str, *, err: bool) -> bool:
        questions.append(question)
        return answer and err

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", confirm)
    assert run("delete", filled, *ALICES).code == code
    assert f"Delete {ALICE} with its 3 records from " in questions[0]
    assert accounts_in(filled) == left


def test_which_account_must_be_clear(run: Run, filled: str) -> None:
    ended = run("delete", filled, "--yes")
    assert ended.code == ExitCode.USAGE
    assert f"has: {ALICE}, {BOB}; choose one" in ended.err
    assert accounts_in(filled) == [ALICE, BOB]


def test_a_mistyped_path(run: Run, tmp_path: Path) -> None:
    assert run("delete", f"sqlite:///{tmp_path}/mistyped.db", "--yes").code == ExitCode.USAGE
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf"])
def test_a_time_to_watch_that_is_none(run: Run, tmp_path: Path, seconds: str) -> None:
    url = f"sqlite:///{tmp_path}/keys.db"
    with open_backend(url) as backend:
        backend.open_store(ALICE, pickle_key=KEY).close()
    ended = run("delete", url, "--yes", "--watch", seconds)
    assert (ended.code, "Invalid value for '--watch'" in ended.err) == (ExitCode.USAGE, True)
    assert accounts_in(url) == [ALICE]
