"""`cryptostore import-nio`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final

import pytest

from command_line import Run, on_a_terminal
from cryptostore import InboundGroupSession, SyncToken, open_backend
from cryptostore.cli.exits import ExitCode
from databases_in_use import accounts_in
from nio_sources import ALICE, BOB, KEY, Client, all_of

VARIABLE = "CRYPTOSTORE_PICKLE_KEY"
PAGE: Final = Path(__file__).parents[2] / "docs" / "existing-bots.md"


@pytest.fixture(autouse=True)
def no_key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "pickle.key"
    file.write_text(KEY + "\n")
    return file


def test_a_complete_import(run: Run, alice: Client, sqlite_url: str, key_file: Path) -> None:
    alice.received_session()
    alice.store.save_sync_token("token")
    ended = run("import-nio", alice.path, sqlite_url, "--pickle-key-file", key_file)
    assert ended.code == 0, ended.err
    assert "Imported into sqlite:" in ended.out
    for kind in ("inbound_group_session", "olm_account", "sync_token"):
        assert kind in ended.out
    assert ended.err == ""
    assert all_of(sqlite_url, SyncToken) == [SyncToken("token")]


def test_the_owner_is_the_command_whatever_the_url_says(
    run: Run, alice: Client, sqlite_url: str, key_file: Path
) -> None:
    words = ("import-nio", alice.path, f"{sqlite_url}?owner=the%20bot&deadline=9", "--pickle-key-file", key_file)
    assert run(*words).code == 0
    with open_backend(sqlite_url) as backend:
        assert backend.accounts()[ALICE].owner.startswith("cryptostore import-nio on ")


def test_people_see_how_far_an_import_is(alice: Client, sqlite_url: str, key_file: Path) -> None:
    for _ in range(3):
        alice.received_session()
    shown = on_a_terminal("import-nio", alice.path, sqlite_url, "--pickle-key-file", key_file)
    assert "importing" in shown
    assert "3/3" in shown
    assert len(all_of(sqlite_url, InboundGroupSession)) == 3


def test_an_incomplete_import_says_so(run: Run, folder: Path, sqlite_url: str, key_file: Path) -> None:
    alice, bob = Client(folder, ALICE), Client(folder, BOB, "another key")
    _, inbound = alice.received_session()
    bob.store.save_inbound_group_session(inbound)
    alice.own_session()
    ended = run("import-nio", alice.path, sqlite_url, "--pickle-key-file", key_file)
    assert ended.code == ExitCode.CHECK_FAILED
    assert "What the source could not give" in ended.out
    assert inbound.id in ended.out
    assert len(all_of(sqlite_url, InboundGroupSession)) == 1
    alice.close()
    bob.close()


def test_json(run: Run, alice: Client, sqlite_url: str, key_file: Path) -> None:
    alice.received_session()
    alice.ask_for_key("r" * 256)
    ended = run("import-nio", alice.path, sqlite_url, "--json", "--pickle-key-file", key_file)
    assert ended.code == ExitCode.CHECK_FAILED
    document = ended.document
    assert not document["complete"]
    assert not document["dry_run"]
    assert document["source"] == str(alice.path)
    assert document["accounts"] == [
        {**ids_of_alice(), "imported": {"inbound_group_session": 1, "olm_account": 1}},
    ]
    (finding,) = document["findings"]
    assert finding == {
        **ids_of_alice(),
        "kind": "key request",
        "reason": "no database may store it: request_id must be at most 255 UTF-8 bytes, not 256",
        "ids": ["r" * 256],
    }


def ids_of_alice() -> dict[str, str]:
    return {"user_id": ALICE.user_id, "device_id": ALICE.device_id}


def test_a_dry_run_writes_nothing(run: Run, alice: Client, tmp_path: Path, key_file: Path) -> None:
    alice.received_session()
    ended = run("import-nio", alice.path, f"sqlite:///{tmp_path}/new.db", "--dry-run", "--pickle-key-file", key_file)
    assert ended.code == 0
    assert "Can be read; sqlite:///" in ended.out
    assert "new.db was not looked at: there is no database" in ended.err
    assert "inbound_group_session" in ended.out
    assert not (tmp_path / "new.db").exists()


def test_a_dry_run_says_what_would_be_refused(run: Run, alice: Client, sqlite_url: str, key_file: Path) -> None:
    alice.received_session()
    words = ("import-nio", alice.path, sqlite_url, "--pickle-key-file", key_file)
    open_backend(sqlite_url).close()
    before = run(*words, "--dry-run")
    assert before.code == 0
    assert "Would be imported into" in before.out
    assert accounts_in(sqlite_url) == []
    assert run(*words).code == 0
    refused = run(*words, "--dry-run")
    assert (refused.code, refused.out) == (ExitCode.USAGE, "")
    assert f"{ALICE} is in the database already and is left as it is" in refused.err


def test_the_pickle_key_from_the_environment(
    run: Run, alice: Client, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    assert run("import-nio", alice.path, sqlite_url).code == 0
    assert accounts_in(sqlite_url) == [ALICE]


def test_the_pickle_key_from_a_variable_of_another_name(
    run: Run, alice: Client, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOT_KEY", KEY)
    monkeypatch.setenv(VARIABLE, "not this one")
    assert run("import-nio", alice.path, sqlite_url, "--pickle-key-env", "BOT_KEY").code == 0


def test_the_pickle_key_from_a_prompt(
    run: Run, alice: Client, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryptostore.cli.output.has_terminal", lambda: True)
    monkeypatch.setattr("typer.prompt", lambda *_, **options: KEY if options["hide_input"] else "shown")
    assert run("import-nio", alice.path, sqlite_url, "--ask-pickle-key").code == 0


def test_nios_default_key_with_a_warning(run: Run, folder: Path, sqlite_url: str) -> None:
    client = Client(folder, key="DEFAULT_KEY")
    client.close()
    ended = run("import-nio", client.path, sqlite_url)
    assert ended.code == 0
    assert ended.err.startswith("warning: no pickle key was given, so nio's default is tried; everybody knows it")


def test_a_client_that_never_set_a_pickle_key_gets_one_by_the_commands_of_the_page(
    run: Run, folder: Path, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(folder, key="DEFAULT_KEY")
    client.received_session()
    client.close()
    monkeypatch.chdir(tmp_path)
    section = PAGE.read_text().partition("## Bring the keys over")[2].partition("\n## ")[0]
    _, without_key = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    for line in without_key.splitlines():
        line = line.replace("STORE_FOLDER/@bot:example.org_BOTDEVICE.db", str(client.path))
        program, *words = shlex.split(line.replace("postgresql://bot@db.example.org/keys", sqlite_url))
        ended = run(*words)
        assert (program, ended.code) == ("cryptostore", 0), ended
    assert run("verify", sqlite_url, "--pickle-key-file", "pickle-key").code == 0
    assert run("verify", sqlite_url).code == ExitCode.USAGE


def test_the_pickle_key_is_never_shown(
    run: Run, alice: Client, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "wrong secret key")
    ended = run("import-nio", alice.path, sqlite_url)
    assert ended.code == ExitCode.USAGE
    assert "wrong secret key" not in ended.out + ended.err
    assert ended.err.startswith("error: the pickle key opens no account of the source")
    assert "A client that never set one has nio's default: give none then, and set no variable" in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (["--pickle-key-env", "NO_SUCH_VARIABLE"], "no variable NO_SUCH_VARIABLE"),
        (["--pickle-key-file", "/no/such/file"], "No such file"),
        (["--pickle-key-file", "/dev/null"], "must hold the pickle key in one line"),
        (["--ask-pickle-key", "--pickle-key-env", "X"], "give either --pickle-key-env or"),
        (["--user-id", "@nobody:example.org"], f"it has: {ALICE}"),
    ],
)
def test_mistakes_are_named(
    run: Run, alice: Client, sqlite_url: str, options: list[str], remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "--user-id" in options:
        monkeypatch.setenv(VARIABLE, KEY)
    ended = run("import-nio", alice.path, sqlite_url, *options)
    assert ended.code == ExitCode.USAGE
    assert remedy in ended.err
    assert "Traceback" not in ended.err


def test_one_account_of_several(run: Run, alice: Client, bob: Client, sqlite_url: str, key_file: Path) -> None:
    options = ("--pickle-key-file", key_file, "--user-id", BOB.user_id, "--device-id", BOB.device_id)
    assert run("import-nio", bob.path, sqlite_url, *options).code == 0
    assert accounts_in(sqlite_url) == [BOB]
    assert alice.path == bob.path


def test_an_account_that_is_there_is_refused(run: Run, alice: Client, sqlite_url: str, key_file: Path) -> None:
    words = ("import-nio", alice.path, sqlite_url, "--pickle-key-file", key_file)
    assert run(*words).code == 0
    ended = run(*words)
    assert ended.code == ExitCode.USAGE
    assert f"{ALICE} is in the database already and is left as it is" in ended.err


def test_a_database_that_ends_with_its_process_is_refused(run: Run, alice: Client, key_file: Path) -> None:
    ended = run("import-nio", alice.path, "memory://keys", "--pickle-key-file", key_file)
    assert ended.code == ExitCode.USAGE
    assert "keeps nothing beyond its process" in ended.err


def test_the_destination_from_the_environment(
    run: Run, alice: Client, sqlite_url: str, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A URL may hold a password, which has no place in a list of processes."""
    monkeypatch.setenv("CRYPTOSTORE_URL", sqlite_url)
    assert run("import-nio", alice.path, "--pickle-key-file", key_file).code == 0
    assert accounts_in(sqlite_url) == [ALICE]


def test_many_ids_are_cut_for_people_only(run: Run, alice: Client, sqlite_url: str, key_file: Path) -> None:
    for number in range(9):
        alice.ask_for_key(f"{number}{'r' * 255}")
    ended = run("import-nio", alice.path, sqlite_url, "--pickle-key-file", key_file)
    assert "and 4 more (--json has all)" in ended.out
