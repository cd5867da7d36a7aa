"""Commands find the database and the pickle key where a client does: in the environment, or in a `.env` file."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from nio.crypto import OlmAccount

from command_line import Run, run_process
from cryptostore.cli.exits import ExitCode
from cryptostore.nio import NioStore
from cryptostore.nio.configuration import client_settings
from nio_sources import ALICE, Client

URL: Final = "sqlite:///keys.db"
KEY: Final = "k3y${HOME}y! of the old client"
COMMANDS: Final = {
    "stats": ["stats"],
    "rekey": ["rekey", "--new-pickle-key-env", "NEW_KEY"],
    "import-nio": ["import-nio", "nio.db"],
    "contract": ["contract"],
}


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("CRYPTOSTORE_URL", "CRYPTOSTORE_PICKLE_KEY", "USE_POSTGRES_STORE", "NEW_KEY"):
        monkeypatch.delenv(name, raising=False)


def write(*lines: str, encoding: str = "utf-8") -> None:
    Path(".env").touch(0o600)
    Path(".env").write_text("\n".join(lines), encoding=encoding)


def test_commands_use_what_the_client_uses(run: Run, tmp_path: Path) -> None:
    write(
        f"CRYPTOSTORE_URL={URL}", f"CRYPTOSTORE_PICKLE_KEY='{KEY}'", "NEW_KEY='another ${x} key'", encoding="utf-8-sig"
    )
    settings = client_settings("https://example.org", ALICE.user_id, ALICE.device_id)
    Client(tmp_path, key=settings.pickle_key).close()
    for words in (COMMANDS["import-nio"], COMMANDS["stats"], COMMANDS["rekey"]):
        ended = run(*words)
        assert (ended.code, ended.err) == (0, ""), ended
        assert str(ALICE) in ended.out
    with closing(NioStore(ALICE.user_id, ALICE.device_id, settings.store, "another ${x} key")) as store:
        assert store.load_account() is not None


def test_the_environment_wins_over_the_file_and_the_command_line_over_both(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("file", "environment", "words"):
        with closing(NioStore(f"@{name}:x", "D", f"sqlite:///{name}.db", KEY)) as store:
            store.save_account(OlmAccount())
    write("CRYPTOSTORE_URL=sqlite:///file.db")
    assert "@file:x" in run("stats").out
    monkeypatch.setenv("CRYPTOSTORE_URL", "sqlite:///environment.db")
    assert "@environment:x" in run("stats").out
    assert "@words:x" in run("stats", "sqlite:///words.db").out


@pytest.mark.parametrize("command", ["stats", "rekey", "contract"])
def test_the_parts_of_a_postgres_url(run: Run, command: str) -> None:
    write("USE_POSTGRES_STORE=true", "POSTGRES_DB=keys", "POSTGRES_PORT=many", "NEW_KEY=new")
    ended = run(*COMMANDS[command])
    assert ended.code == ExitCode.USAGE
    assert "POSTGRES_PORT, is not a number" in ended.err


@pytest.mark.parametrize("command", COMMANDS)
def test_no_database_at_all(run: Run, command: str) -> None:
    ended = run(*COMMANDS[command])
    assert (ended.code, ended.out) == (ExitCode.USAGE, "")
    assert ended.err.startswith("error: no database is named: give its URL, or set CRYPTOSTORE_URL")


def test_a_key_that_others_may_read_is_named_on_standard_error() -> None:
    with closing(NioStore("@a:x", "D", URL, KEY)) as store:
        store.save_account(OlmAccount())
    Path("pickle.key").write_text(KEY)
    Path("pickle.key").chmod(0o644)
    ended = run_process(
        "rekey", URL, "--pickle-key-file", "pickle.key", "--new-pickle-key-file", "pickle.key", "--json"
    )
    assert ended.code == 0
    assert ended.document["accounts"]
    assert "the pickle key in pickle.key is open to other users of this machine (mode 0644); chmod 600" in ended.err
