"""`cryptostore rekey`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from nio.crypto import OlmAccount

from command_line import Run, on_a_terminal
from cryptostore import (
    Account,
    Backend,
    BackendUnavailable,
    InboundGroupSession,
    Mode,
    Row,
    WrongPickleKey,
    open_backend,
)
from cryptostore.cli.exits import ExitCode
from cryptostore.nio import NioStore
from cryptostore.store import rekeying
from cryptostore.store.keys import encode_key
from cryptostore.store.marks import MARK_KEY, Mark, Whereabouts, encode_mark
from nio_places import Ratchet
from spoiling import put_rows

ALICE, BOB = Account("@alice:example.org", "A"), Account("@bob:example.org", "B")
OLD, NEW = "the old secret", "the new secret"
VARIABLE = "CRYPTOSTORE_PICKLE_KEY"


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old key where clients find it, and files of both."""
    monkeypatch.setenv(VARIABLE, OLD)
    monkeypatch.setenv("NEW_KEY", NEW)
    monkeypatch.chdir(tmp_path)
    Path("old.key").write_text(OLD)
    Path("new.key").write_text(NEW)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/keys.db"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


def saved(url: str, account: Account = ALICE, key: str = OLD) -> Ratchet:
    """The one session of an account that has just been made."""
    store, ratchet = NioStore(account.user_id, account.device_id, url, key), Ratchet()
    store.save_account(OlmAccount())
    store.save_inbound_group_session(ratchet.inbound())
    store.close()
    return ratchet


def holds(url: str, ratchet: Ratchet, key: str, account: Account = ALICE) -> bool:
    store = NioStore(account.user_id, account.device_id, url, key)
    try:
        return ratchet.found_in(store) is not None
    finally:
        store.close()


def test_people_see_what_was_done(run: Run, url: str) -> None:
    ratchet = saved(url)
    ended = run("rekey", url, "--new-pickle-key-file", "new.key")
    assert ended.code == 0, ended.err
    assert ended.err == ""
    assert "New pickle key in" in ended.out
    assert str(ALICE) in ended.out
    assert "inbound_group_session" in ended.out
    assert holds(url, ratchet, NEW)
    with pytest.raises(WrongPickleKey):
        holds(url, ratchet, OLD)


def test_people_see_how_far_it_is(sqlite_url: str) -> None:
    ratchets = saved(sqlite_url), saved(sqlite_url, BOB)
    shown = on_a_terminal("rekey", sqlite_url, "--new-pickle-key-file", "new.key")
    assert f"sealing the records of {ALICE}" in shown
    assert f"sealing the records of {BOB}" in shown
    assert holds(sqlite_url, ratchets[0], NEW)


def test_programs_get_json(run: Run, sqlite_url: str) -> None:
    saved(sqlite_url)
    ended = run("rekey", sqlite_url, "--new-pickle-key-file", "new.key", "--json")
    (account,) = ended.document["accounts"]
    assert (account["user_id"], account["device_id"]) == (ALICE.user_id, ALICE.device_id)
    assert account["resealed"] == {"olm_account": 1, "inbound_group_session": 1}
    assert account["unreadable"] == {}


def test_it_may_be_run_again(run: Run, sqlite_url: str) -> None:
    ratchet = saved(sqlite_url)
    for _ in range(2):
        assert run("rekey", sqlite_url, "--new-pickle-key-file", "new.key").code == 0
    assert holds(sqlite_url, ratchet, NEW)


def test_one_account_of_several(run: Run, sqlite_url: str) -> None:
    alices, bobs = saved(sqlite_url), saved(sqlite_url, BOB)
    options = ("--user-id", ALICE.user_id, "--device-id", ALICE.device_id, "--new-pickle-key-file", "new.key")
    assert run("rekey", sqlite_url, *options).code == 0
    assert holds(sqlite_url, alices, NEW)
    assert holds(sqlite_url, bobs, OLD, BOB)
    nobody = run("rekey", sqlite_url, "--user-id", "@nobody:x", "--new-pickle-key-file", "new.key")
    assert nobody.code == ExitCode.USAGE
    assert f"has no such account; it has: {ALICE}, {BOB}" in nobody.err


def test_one_with_another_key_and_none_is_touched(run: Run, sqlite_url: str) -> None:
    alices, bobs = saved(sqlite_url), saved(sqlite_url, BOB, "his own")
    ended = run("rekey", sqlite_url, "--new-pickle-key-file", "new.key")
    assert ended.code == ExitCode.USAGE
    assert f"the pickle key is not the one that {BOB} was saved with" in ended.err
    assert holds(sqlite_url, alices, OLD)
    assert holds(sqlite_url, bobs, "his own", BOB)


def test_an_account_without_keys_is_left_out(run: Run, sqlite_url: str) -> None:
    alices = saved(sqlite_url)
    NioStore(BOB.user_id, BOB.device_id, sqlite_url, OLD).close()
    ended = run("rekey", sqlite_url, "--new-pickle-key-file", "new.key")
    assert ended.code == 0
    assert ended.err == f"left out {BOB}, which has no keys\n"
    assert holds(sqlite_url, alices, NEW)


def test_an_error_half_way_says_which_accounts_are_done(
    run: Run, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alices, bobs = saved(sqlite_url), saved(sqlite_url, BOB)
    original = rekeying.rekey

    def rekey(backend: Backend, account: Account, *rest: Any, **options: Any) -> Any:
        if account == BOB:
            raise BackendUnavailable("away")
        return original(backend, account, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(rekeying, "rekey", rekey)
        ended = run("rekey", sqlite_url, "--new-pickle-key-file", "new.key")
    assert ended.code == ExitCode.UNAVAILABLE
    assert f"interrupted: {ALICE} is complete with the new pickle key" in ended.err
    # The first of its batches has made it valid.
    assert "the next one may need it already: keep both" in ended.err
    assert run("rekey", sqlite_url, "--new-pickle-key-file", "new.key").code == 0
    assert holds(sqlite_url, alices, NEW)
    assert holds(sqlite_url, bobs, NEW, BOB)


def test_the_old_key_from_the_file_where_a_client_finds_it(
    run: Run, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv(f"{VARIABLE}_FILE", "old.key")
    ratchet = saved(sqlite_url)
    assert run("rekey", sqlite_url, "--new-pickle-key-file", "new.key").code == 0
    assert holds(sqlite_url, ratchet, NEW)


def half_copied(url: str, account: Account) -> None:
    """Leave what an interrupted copy of the account leaves."""
    with open_backend(url) as backend:
        backend.open_store(account, pickle_key=OLD).close()
    mark = Mark(Whereabouts.COMING, 1, 2, "sqlite:///elsewhere.db", datetime(2026, 1, 2, tzinfo=UTC))
    put_rows(url, account, Row(MARK_KEY, encode_mark(account, mark)))


def test_an_account_that_is_not_complete_here_still_needs_the_old_key(run: Run, url: str) -> None:
    ratchet = saved(url)
    half_copied(url, BOB)
    ended = run("rekey", url, "--new-pickle-key-file", "new.key", "--json")
    assert ended.code == ExitCode.CHECK_FAILED
    assert [each["user_id"] for each in ended.document["accounts"]] == [ALICE.user_id]
    [bob] = ended.document["left_out"]
    assert (bob["user_id"], bob["device_id"]) == (BOB.user_id, BOB.device_id)
    assert (bob["whereabouts"], bob["place"]) == ("coming", "sqlite:///elsewhere.db")
    assert f"a copy of {BOB} from sqlite:///elsewhere.db is not complete here" in bob["reason"]
    assert holds(url, ratchet, NEW)


def test_a_damaged_mark_ends_it_before_anything_is_changed(run: Run, sqlite_url: str) -> None:
    ratchet = saved(sqlite_url)
    half_copied(sqlite_url, BOB)
    put_rows(sqlite_url, BOB, Row(MARK_KEY, b"damaged"))
    ended = run("rekey", sqlite_url, "--new-pickle-key-file", "new.key")
    assert (ended.code, ended.err.count("\n")) == (ExitCode.REFUSED, 1)
    assert f"error: the mark that {BOB} is being moved" in ended.err
    assert holds(sqlite_url, ratchet, OLD)


def test_records_that_cannot_be_opened_are_counted_and_kept(run: Run, sqlite_url: str) -> None:
    saved(sqlite_url)
    with open_backend(sqlite_url) as backend, backend.open_store(ALICE, pickle_key=OLD) as store:
        (session,) = store.scan(InboundGroupSession)
        damaged = Row(encode_key(InboundGroupSession, session.key), b"damaged")
        store.put_rows([damaged])
    ended = run("rekey", sqlite_url, "--new-pickle-key-file", "new.key", "--json")
    assert ended.code == ExitCode.CHECK_FAILED
    assert ended.document["accounts"][0]["unreadable"] == {"inbound_group_session": 1}
    with open_backend(sqlite_url) as backend, backend.open_store(ALICE, Mode.READ) as store:
        assert damaged in list(store.stored_rows())


def test_wrap_only_leaves_the_records_as_they_are(run: Run, sqlite_url: str) -> None:
    ratchet = saved(sqlite_url)
    with open_backend(sqlite_url) as backend, backend.open_store(ALICE, Mode.READ) as store:
        before = list(store.stored_rows())
    ended = run("rekey", sqlite_url, "--new-pickle-key-file", "new.key", "--wrap-only", "--json")
    assert ended.code == 0
    assert ended.document["accounts"][0]["resealed"] == {}
    with open_backend(sqlite_url) as backend, backend.open_store(ALICE, Mode.READ) as store:
        assert list(store.stored_rows())[1:-1] == before[1:-1]
    assert holds(sqlite_url, ratchet, NEW)


def test_people_see_whose_pickle_key_was_changed_alone(run: Run, sqlite_url: str) -> None:
    saved(sqlite_url)
    ended = run("rekey", sqlite_url, "--new-pickle-key-file", "new.key", "--wrap-only")
    assert ended.code == 0
    assert str(ALICE) in ended.out


def test_the_same_pickle_key_seals_again(run: Run, sqlite_url: str) -> None:
    ratchet = saved(sqlite_url)
    ended = run("rekey", sqlite_url, "--new-pickle-key-file", "old.key", "--json")
    assert ended.code == 0
    assert ended.document["accounts"][0]["resealed"] == {"olm_account": 1, "inbound_group_session": 1}
    assert holds(sqlite_url, ratchet, OLD)


def test_nios_default_key_is_changed_with_a_warning(run: Run, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    ratchet = saved(sqlite_url, key="DEFAULT_KEY")
    ended = run("rekey", sqlite_url, "--new-pickle-key-env", "NEW_KEY")
    assert ended.code == 0
    assert ended.err.startswith("warning: no pickle key was given, so nio's default is tried")
    assert holds(sqlite_url, ratchet, NEW)


def from_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[str, Callable[[bool], str]] = {
        "Pickle key": lambda twice: "" if twice else OLD,
        "New pickle key": lambda twice: NEW if twice else "",
    }
    monkeypatch.setattr("cryptostore.cli.output.has_terminal", lambda: True)
    monkeypatch.setattr(
        "typer.prompt",
        lambda text, *, hide_input, err, confirmation_prompt: answers[text](confirmation_prompt) * (hide_input and err),
    )


def test_keys_from_prompts(run: Run, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "not this one")
    ratchet = saved(sqlite_url)
    from_prompts(monkeypatch)
    assert run("rekey", sqlite_url, "--ask-pickle-key", "--ask-new-pickle-key").code == 0
    assert holds(sqlite_url, ratchet, NEW)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ([], "there is no new pickle key: give --new-pickle-key-file"),
        (["--new-pickle-key-env", "NO_SUCH_VARIABLE"], "no variable NO_SUCH_VARIABLE"),
        (["--new-pickle-key-file", "/no/such/file"], "No such file"),
        (["--new-pickle-key-file", "old.key", "--wrap-only"], "the new pickle key must not be the old one"),
        (["--new-pickle-key-env", "EMPTY"], "empty or nio's default"),
        (["--new-pickle-key-env", "PUBLIC"], "empty or nio's default"),
        (["--new-pickle-key-env", "NO_TEXT"], "the pickle key in the variable NO_TEXT is not UTF-8 text"),
        (["--ask-new-pickle-key", "--new-pickle-key-env", "X"], "give either --new-pickle-key-env or"),
        (
            ["--new-pickle-key-file", "new.key", "--ask-pickle-key", "--pickle-key-env", "X"],
            "give either --pickle-key-env or",
        ),
        (["--new-pickle-key-file", "new.key", "--user-id", "@nobody:example.org"], f"it has: {ALICE}"),
        (["--new-pickle-key-file", "new.key", "--pickle-key-env", "PUBLIC"], "the pickle key is not the one that"),
    ],
)
def test_mistakes_are_named_and_change_nothing(
    run: Run, sqlite_url: str, options: list[str], remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("PUBLIC", "DEFAULT_KEY")
    monkeypatch.setenv("NO_TEXT", "\udcff")
    ratchet = saved(sqlite_url)
    monkeypatch.setattr("typer.prompt", lambda *_, **__: pytest.fail("asked before the mistake was told"))
    ended = run("rekey", sqlite_url, *options)
    assert ended.code == ExitCode.USAGE
    assert remedy in ended.err
    assert ended.err.count("\n") == 1
    assert OLD not in ended.out + ended.err
    assert NEW not in ended.out + ended.err
    assert holds(sqlite_url, ratchet, OLD)


def test_a_database_without_accounts(run: Run, sqlite_url: str) -> None:
    open_backend(sqlite_url).close()
    ended = run("rekey", sqlite_url, "--new-pickle-key-file", "new.key")
    assert ended.code == ExitCode.USAGE
    assert "has no such account with keys; it has: none" in ended.err


def test_a_database_in_memory_is_refused(run: Run) -> None:
    ended = run("rekey", "memory://", "--new-pickle-key-file", "new.key")
    assert ended.code == ExitCode.USAGE
    assert "keeps nothing beyond its process" in ended.err
