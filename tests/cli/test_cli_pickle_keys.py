"""Pickle keys that no file or variable holds: those that a program hands out, and those in the system's keyring."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from nio.crypto import OlmAccount

from command_line import Run, run_process
from cryptostore import new_pickle_key
from cryptostore.cli.app import build_app
from cryptostore.cli.exits import ExitCode
from cryptostore.nio import NioStore
from cryptostore.nio.configuration import client_settings

KEY, NEW = new_pickle_key(), new_pickle_key()
VARIABLE = "CRYPTOSTORE_PICKLE_KEY"
#: A real backend of the library, which keeps its entries in a file of the home folder.
BACKEND = "keyrings.alt.file.PlaintextKeyring"
FORMS = ("--pickle-key-env", "--pickle-key-file", "--pickle-key-command", "--pickle-key-keyring", "--ask-pickle-key")

#: Two clients, as a program of several bots has them.
TWO_CLIENTS = """
import os
from nio import AsyncClient, AsyncClientConfig
os.makedirs("store", exist_ok=True)
for name in ("one", "two"):
    client = AsyncClient("https://example.org", f"@{name}:x", "D", "store", AsyncClientConfig())
    client.restore_login(f"@{name}:x", "D", "token")
    client.load_store()
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, with a program that hands out the key and notes that it was asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    Path("hand-out").write_text(f"#!/bin/sh\necho asked >> asked\necho {KEY}\n")
    Path("hand-out").chmod(0o700)
    return tmp_path


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/keys.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


def saved(url: str, key: str) -> None:
    store = NioStore("@bot:x", "D", url, key)
    store.save_account(OlmAccount())
    store.close()


def asked() -> int:
    """How often the program was."""
    return len(Path("asked").read_text().splitlines())


def test_a_key_moves_from_the_keyring_to_a_program(url: str, tmp_path: Path) -> None:
    keyring = {"PYTHON_KEYRING_BACKEND": BACKEND}
    made = run_process("new-key", "--keyring", "matrix-cryptostore/my-bot", env=keyring)
    assert (made.code, made.out) == (0, "")
    assert "clients find it by CRYPTOSTORE_PICKLE_KEY_KEYRING=matrix-cryptostore/my-bot" in made.err
    # Others find it, too: it is an ordinary entry.
    get = [sys.executable, "-m", "keyring", "--keyring-backend", BACKEND, "get", "matrix-cryptostore", "my-bot"]
    saved(url, subprocess.run(get, capture_output=True, text=True, check=True).stdout.strip())
    verified = run_process("verify", url, env={**keyring, f"{VARIABLE}_KEYRING": "matrix-cryptostore/my-bot"})
    assert (verified.code, verified.err) == (0, "")
    words = ("--pickle-key-keyring", "matrix-cryptostore/my-bot", "--new-pickle-key-command", "./hand-out")
    assert run_process("rekey", url, *words, env=keyring).code == 0
    assert run_process("verify", url, env={f"{VARIABLE}_COMMAND": "./hand-out"}).code == 0
    assert asked() == 2


def test_a_client_asks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").touch(0o600)
    Path(".env").write_text(f"{VARIABLE}_COMMAND=./hand-out\nCRYPTOSTORE_URL=sqlite:///keys.db\n")
    assert client_settings("https://example.org", "@bot:x").pickle_key == KEY
    assert asked() == 1


def test_a_program_of_two_clients_asks_once() -> None:
    Path("bots.py").write_text(TWO_CLIENTS)
    environment = {f"{VARIABLE}_COMMAND": "./hand-out", "CRYPTOSTORE_URL": "sqlite:///keys.db"}
    ended = run_process("run", "bots.py", env=environment)
    assert ended.code == 0, ended.err
    assert asked() == 1
    assert run_process("verify", "sqlite:///keys.db", "--pickle-key-command", "./hand-out").code == 0


def test_a_key_that_somebody_keeps_elsewhere_is_an_error_of_one_line(run: Run) -> None:
    saved("sqlite:///keys.db", KEY)
    failed = run("verify", "sqlite:///keys.db", "--pickle-key-command", "sh -c 'echo csk1_x; exit 7'", "--json")
    assert failed.code == ExitCode.USAGE
    assert failed.document["message"].startswith("the command in --pickle-key-command ended with the exit code 7")
    assert "csk1_x" not in failed.out + failed.err
    both = run("verify", "sqlite:///keys.db", "--pickle-key-command", "./hand-out", "--pickle-key-keyring", "a/b")
    assert both.err == "error: give either --pickle-key-command or --pickle-key-keyring, not both\n"
    assert not Path("asked").exists()
    new = run("rekey", "sqlite:///keys.db", "--pickle-key-command", "./hand-out")
    assert new.code == ExitCode.USAGE
    assert "--new-pickle-key-command" in new.err


def test_a_new_key_goes_to_one_place(run: Run) -> None:
    ended = run("new-key", "--keyring", "a/b", "--file", "key")
    assert (ended.code, ended.err) == (ExitCode.USAGE, "error: give either --file or --keyring, not both\n")
    assert not Path("key").exists()


def options(command: Any, name: str = "") -> Iterator[tuple[str, set[str]]]:
    """The options of each command."""
    for sub in getattr(command, "commands", {}):
        yield from options(command.commands[sub], f"{name} {sub}".strip())
    yield name, {each for parameter in command.params for each in parameter.opts}


def test_every_command_that_takes_a_pickle_key_takes_it_from_everywhere() -> None:
    takers = {name: found for name, found in options(typer.main.get_command(build_app())) if found & set(FORMS)}
    assert len(takers) > 10
    assert [name for name, found in takers.items() if not found >= set(FORMS)] == []
