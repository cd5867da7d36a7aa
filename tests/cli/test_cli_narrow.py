"""Terminals of 80 and of 60 columns, and none at all: nothing is cut, and nobody is asked who cannot answer."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import typer
from nio.crypto import OlmAccount

from command_line import Ended, Run
from cryptostore import Account, new_pickle_key
from cryptostore.cli.app import build_app
from cryptostore.cli.exits import ExitCode
from cryptostore.cli.output import print_table
from cryptostore.nio import NioStore
from narrow_terminals import helps, lines_on_a_terminal, too_wide, without_style
from nio_places import Ratchet

URL = "sqlite:///keys.db"
KEY = new_pickle_key()
ALICE = Account("@alice:example.org", "A")
LONG = Account("@a-bot-with-a-long-name:matrix.example.org", "ABCDEFGHIJ")
BOXES = "┏┃┡│└"
HELPS = list(helps(typer.main.get_command(build_app())))

#: The commands that only look, and what each is to show unbroken.
LOOKING = {
    "accounts": ["accounts", URL],
    "backends": ["backends"],
    "config": ["config", URL],
    "doctor": ["doctor", URL],
    "health": ["health", URL],
    "identity": ["identity", URL],
    "migrate": ["migrate", URL],
    "prune": ["prune", URL, "--user-id", LONG.user_id, "--answered-requests", "--dry-run"],
    "show": ["show", URL, "--user-id", LONG.user_id],
    "stats": ["stats", URL],
    "verify": ["verify", URL],
}
ASKING = {
    "--ask-pickle-key": ["verify", URL, "--ask-pickle-key"],
    "--ask-new-pickle-key": ["rekey", URL, "--ask-new-pickle-key"],
    "--ask-passphrase": ["export-keys", "keys.txt", URL, "--ask-passphrase"],
    "--ask-recovery-key": ["restore-backup", URL, "--ask-recovery-key"],
    "--yes": ["delete", URL, "--user-id", ALICE.user_id, "--watch", "0.1"],
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", KEY)


@pytest.fixture
def filled(tmp_path: Path) -> None:
    """A database with two accounts, one of a long name."""
    for account in (ALICE, LONG):
        with closing(NioStore(account.user_id, account.device_id, URL, KEY)) as store:
            store.save_account(OlmAccount())
            store.save_inbound_group_session(Ratchet().inbound())


def words_of(text: str) -> set[str]:
    return set(text.split())


@pytest.mark.parametrize("columns", [80, 60])
@pytest.mark.parametrize("words", HELPS, ids=lambda words: " ".join(words) or "the program")
def test_no_line_of_a_help_text_is_too_wide_and_nothing_in_it_is_cut(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    ended = run(*words, "--help")
    assert ended.code == 0
    assert too_wide([line.rstrip() for line in ended.out.splitlines()], columns) == []
    assert "…" not in ended.out


@pytest.mark.parametrize("columns", [80, 60])
@pytest.mark.parametrize("words", LOOKING.values(), ids=LOOKING)
def test_what_a_command_shows_fits(
    filled: None, run: Run, monkeypatch: pytest.MonkeyPatch, words: list[str], columns: int
) -> None:
    wide = words_of(run(*words).out)
    # As on a terminal of this width.
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("FORCE_COLOR", "1")
    shown = without_style(run(*words).out)
    assert too_wide([line for line in shown.splitlines() if line.startswith(tuple(BOXES))], columns) == []
    assert "…" not in shown
    for word in wide & {LONG.user_id, LONG.device_id, "inbound_group_session", "matrix-cryptostore-postgres"}:
        assert word in words_of(shown)


def test_a_real_terminal_of_60_columns(filled: None) -> None:
    lines = lines_on_a_terminal(60, "stats", URL)
    assert lines == [
        "Stored in sqlite:///keys.db",
        "  kind                   rows  bytes",
        str(LONG),
        *(line for line in lines[3:7]),
        str(ALICE),
        *(line for line in lines[8:]),
    ]
    assert [line.split()[0] for line in lines[3:7]] == ["key_ring", "olm_account", "inbound_group_session", "key_ring"]
    assert too_wide(lines, 60) == []


def test_a_secret_that_is_typed_on_a_real_terminal(filled: None) -> None:
    lines = lines_on_a_terminal(80, "verify", URL, "--ask-pickle-key", typed=f"{KEY}\n")
    assert lines[0].startswith("Pickle key:")
    assert "Verified in sqlite:///keys.db" in lines
    assert KEY not in "".join(lines)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (60, ["┃ a      ┃ b                  ┃ c          ┃", "│        │ more               │ some words │"]),
        (43, ["│ a_long │ a_word_of_eighteen │ 1         │", "│        │ more               │ some      │"]),
        (38, ["  b                   c", "a_long", "  a_word_of_eighteen  1", "  more                some words"]),
        (30, ["a_long", "  b: a_word_of_eighteen", "  c: 1", "  b: more", "  c: some words"]),
    ],
)
def test_a_table_by_the_room_that_there_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int, expected: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("FORCE_COLOR", "1")
    rows = [["a_long", "a_word_of_eighteen", "1"], ["a_long", "more", "some words"]]
    print_table("title", ["a", "b", "c"], rows)
    shown = without_style(capsys.readouterr().out).splitlines()
    assert shown[0] == "title"
    assert [line for line in expected if line not in shown] == [], shown


def detached(*words: str) -> Ended:
    """Run a command as a service does: in a session without a terminal, with nothing to read."""
    done = subprocess.run(
        [sys.executable, "-c", "from cryptostore.cli import main; main()", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        env=os.environ,
        start_new_session=True,
        timeout=60,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(("instead", "words"), ASKING.items(), ids=ASKING)
def test_nobody_is_asked_where_there_is_no_terminal(filled: None, instead: str, words: list[str]) -> None:
    ended = detached(*words)
    assert (ended.code, ended.out) == (ExitCode.USAGE, "")
    assert "error: there is no terminal to ask" in ended.err
    assert instead.replace("--ask-", "--") in ended.err
    assert "Traceback" not in ended.err
