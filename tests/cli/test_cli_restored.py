"""`cryptostore restored`."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from command_line import Run, on_a_terminal, run_process
from cryptostore import (
    Account,
    Changes,
    FallbackKey,
    FencedOut,
    InboundGroupSession,
    Mode,
    OlmAccount,
    OlmSession,
    OutboundGroupSession,
    Record,
    RestoredAccount,
    SharedPart,
    SyncToken,
    new_pickle_key,
    open_backend,
)
from cryptostore.cli.exits import ExitCode
from databases_in_use import written_to
from example_records import example
from killed_commands import killed, measured

ALICE, BOB = Account("@alice:example.org", "A"), Account("@bob:example.org", "B")
KEY: Final = new_pickle_key()
ALICES: Final = ("--user-id", ALICE.user_id)
NOW: Final = (*ALICES, "--yes", "--watch", "0")

#: Several batches of each.
ARMED: Final[Sequence[Record]] = [
    *[example(OlmSession, session_id=f"session{number}", receive_only=False) for number in range(700)],
    *[example(OutboundGroupSession, room_id=f"!room{number}:x") for number in range(600)],
    *[example(SharedPart, room_id=f"!room{number}:x") for number in range(520)],
    example(FallbackKey),
]
CHANGED: Final = {"outbound_group_session": 600, "shared_part": 520, "fallback_key": 1, "olm_session": 700}

sampled = pytest.mark.parametrize("kills", [3, pytest.param(20, marks=[pytest.mark.soak, pytest.mark.timeout(1_800)])])


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", KEY)


@pytest.fixture(params=["sqlite", "postgres"])
def filled(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/keys.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with open_backend(url) as backend:
        for account in (ALICE, BOB):
            with backend.open_store(account, pickle_key=KEY) as store:
                store.apply(Changes([example(OlmAccount), example(SyncToken), example(InboundGroupSession), *ARMED]))
    return str(url)


def rows(url: str, account: Account = ALICE) -> dict[bytes, bytes]:
    with open_backend(url) as backend, backend.open_store(account, Mode.READ) as store:
        return {row.key: row.value for row in store.stored_rows()}


def stored(url: str, kind: type[Record]) -> list[Record]:
    with open_backend(url) as backend, backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        return list(store.scan(kind))


def is_safe(url: str) -> bool:
    [mark] = stored(url, RestoredAccount)
    assert isinstance(mark, RestoredAccount)
    sessions = stored(url, OlmSession)
    armed = [each for each in sessions if isinstance(each, OlmSession) and not each.receive_only]
    dropped = [stored(url, kind) for kind in (OutboundGroupSession, SharedPart, FallbackKey)]
    kept = [len(stored(url, kind)) for kind in (OlmAccount, SyncToken, InboundGroupSession)]
    return mark.is_disarmed and not armed and len(sessions) == 700 and dropped == [[], [], []] and kept == [1, 1, 1]


def test_one_account_is_made_safe_and_no_other(filled: str) -> None:
    before, bobs = rows(filled), rows(filled, BOB)
    dry = run_process("restored", filled, *ALICES, "--dry-run")
    assert (dry.code, dry.err, rows(filled)) == (0, "", before)
    assert dry.out.startswith(f"would be made safe: {ALICE} in ")
    ended = run_process("restored", filled, *NOW)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"made safe: {ALICE} in ")
    assert "      700  Olm sessions decrypt only from now on\n" in ended.out
    assert "ProductionMatrixClient" in ended.out
    assert all(len(line) <= 80 for line in ended.out.splitlines()[1:])
    assert is_safe(filled)
    assert rows(filled, BOB) == bobs


def test_programs_get_json_and_again_it_does_no_harm(run: Run, filled: str) -> None:
    ended = run("restored", filled, *NOW, "--json").document
    assert (ended["user_id"], ended["device_id"], ended["dry_run"]) == (ALICE.user_id, ALICE.device_id, False)
    assert ended["changed"] == CHANGED
    assert run("restored", filled, *NOW, "--json").document["changed"] == {}
    assert is_safe(filled)


def test_it_asks(run: Run, filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows(filled)
    ended = run("restored", filled, *ALICES)
    assert (ended.code, ended.err.count("give --yes to go on")) == (ExitCode.USAGE, 1)
    questions: list[str] = []

    def confirm(question: str, *, err: bool) -> bool:
        questions.append(question)
        return not err

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", confirm)
    ended = run("restored", filled, *ALICES)
    assert (ended.code, ended.err) == (ExitCode.CHECK_FAILED, "nothing was changed\n")
    assert "600 Megolm and 700 Olm sessions" in questions[0]
    assert rows(filled) == before


def test_an_account_that_is_written_to_is_left_alone(filled: str) -> None:
    with written_to(filled, ALICE, KEY) as fenced:
        ended = run_process("restored", filled, *ALICES, "--yes", "--watch", "60")
    assert (ended.code, fenced) == (ExitCode.USAGE, [])
    assert f"{ALICE} is in use: " in ended.err
    assert not stored(filled, RestoredAccount)


def test_an_owner_that_is_silent_is_fenced_out_by_name(run: Run, filled: str) -> None:
    with open_backend(filled) as backend, backend.open_store(ALICE, pickle_key=KEY) as owner:
        assert run("restored", filled, *NOW).code == 0
        with pytest.raises(FencedOut, match="was taken over by cryptostore restored on "):
            owner.apply(Changes([SyncToken("s3")]))


def test_one_that_has_no_keys(run: Run, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/keys.db"
    with open_backend(url) as backend:
        backend.open_store(ALICE, pickle_key=KEY).close()
    ended = run("restored", url, "--yes", "--watch", "0")
    assert (ended.code, f"{ALICE} has no keys yet" in ended.err) == (ExitCode.USAGE, True)


@pytest.mark.parametrize("filled", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ((), "choose one with --user-id and --device-id"),
        (("--user-id", "@nobody:x"), "has no such account"),
        ((*ALICES, "--pickle-key-env", "WRONG"), "Nothing is damaged"),
        ((*ALICES, "--pickle-key-env", "NONE"), "the environment has no variable NONE"),
    ],
)
def test_mistakes_change_nothing(
    run: Run, filled: str, words: tuple[str, ...], remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRONG", new_pickle_key())
    before = rows(filled)
    ended = run("restored", filled, *words, "--yes", "--watch", "0", "--json")
    assert (ended.code, ended.document["exit_code"]) == (ExitCode.USAGE, ExitCode.USAGE)
    assert remedy in ended.err
    assert rows(filled) == before


def test_no_database_is_made(run: Run, tmp_path: Path) -> None:
    assert run("restored", f"sqlite:///{tmp_path}/mistyped.db", "--yes").code == ExitCode.USAGE
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("filled", ["sqlite"], indirect=True)
def test_people_see_how_far_it_is(filled: str) -> None:
    shown = on_a_terminal("restored", filled, *NOW)
    assert "counting" in shown
    assert "changing" in shown


@sampled
def test_killed_at_a_random_moment_the_same_command_does_the_rest(
    run: Run, filled: str, kills: int, tmp_path: Path
) -> None:
    draw = random.Random(seed := random.randrange(2**32))
    words = ("restored", filled, *NOW)
    work = measured(tmp_path / "report", *words)
    unfinished = 0
    for moment in work.moments(kills, draw):
        with open_backend(filled) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
            store.apply(Changes(ARMED, deletes=[(RestoredAccount, ())]))
        killed(moment, *words)
        marks = stored(filled, RestoredAccount)
        # Once anything was touched, no client opens the account before all of it is.
        unfinished += bool(marks) and not is_safe(filled)
        assert marks or len(stored(filled, OutboundGroupSession)) == 600, seed
        assert run(*words).code == 0, seed
        assert is_safe(filled), seed
    assert unfinished, seed
