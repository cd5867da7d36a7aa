"""`cryptostore run`: programs that were written for nio, each in a process of its own."""

from __future__ import annotations

import os
import signal
import site
import subprocess
import sys
import venv
from functools import partial
from pathlib import Path

import pytest

from command_line import Ended, run_process
from cryptostore import Account, new_pickle_key, open_backend
from cryptostore.cli.exits import ExitCode

KEY = new_pickle_key()
ACCOUNT = Account("@bot:example.org", "BOTDEVICE")

#: As programs write it; the identity is made at the first start, and loaded at the second.
PROGRAM = """
import os, sys
from nio import AsyncClient, AsyncClientConfig
from nio.store import {store}
os.makedirs("store", exist_ok=True)
client = AsyncClient("https://example.org", "@bot:example.org", "BOTDEVICE", "store",
                     AsyncClientConfig(store={store}, store_sync_tokens=True{more}))
client.restore_login("@bot:example.org", "BOTDEVICE", "token")
client.load_store()
print(type(client).__mro__[1].__name__, type(client.store).__name__.partition(".")[0])
print(client.olm.account.identity_keys["ed25519"], os.listdir("store"), client.store_path)
"""

#: A program that opens a store itself, with no client.
OPENS_A_STORE = """
import os
from nio.crypto import Olm
from nio.store import {store}
class Theirs({store}):
    pass
os.makedirs("store", exist_ok=True)
store = {opened}("@bot:example.org", "BOTDEVICE", "store"{more})
account = Olm("@bot:example.org", "BOTDEVICE", store).account
print(account.identity_keys["ed25519"], os.listdir("store"), store.store_path)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the programs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", KEY)
    monkeypatch.setenv("CRYPTOSTORE_URL", "sqlite:///keys.db")
    return tmp_path


def start(source: str, *words: str, options: tuple[str, ...] = ()) -> Ended:
    """Run a program of this text."""
    Path("program.py").write_text(source)
    return run_process("run", *options, "program.py", *words)


@pytest.mark.parametrize("store", ["SqliteStore", "DefaultStore"])
def test_keys_are_in_the_database_and_the_folder_is_the_programs(store: str) -> None:
    first = start(PROGRAM.format(store=store, more=""))
    again = start(PROGRAM.format(store=store, more=""))
    assert (first.code, first.err) == (0, "")
    assert first.out == again.out
    assert "NioStore" in first.out
    assert first.out.endswith(" [] store\n")
    with open_backend("sqlite:///keys.db") as backend:
        assert list(backend.accounts()) == [ACCOUNT]
        backend.open_store(ACCOUNT, pickle_key=KEY).close()


def test_the_production_client_takes_the_place_of_nios() -> None:
    program = PROGRAM.format(store="SqliteStore", more="")
    first = start(program, options=("--production",))
    assert first.code == 0, first.err
    assert first.out.startswith("ProductionMatrixClient ProductionStore\n")
    assert first.out.endswith(" [] store\n")


@pytest.mark.parametrize("given", ["", "DEFAULT_KEY"])
def test_the_environments_pickle_key_stands_for_one_that_everybody_knows(given: str) -> None:
    ended = start(PROGRAM.format(store="SqliteStore", more=f", pickle_key={given!r}"))
    assert (ended.code, ended.err) == (0, "")


def test_without_a_pickle_key_the_program_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRYPTOSTORE_PICKLE_KEY")
    ended = start(PROGRAM.format(store="SqliteStore", more=""))
    assert ended.code == 1
    assert "set CRYPTOSTORE_PICKLE_KEY" in ended.err


def test_a_pickle_key_of_the_programs_own_stays() -> None:
    other = new_pickle_key()
    assert start(PROGRAM.format(store="SqliteStore", more=f", pickle_key={other!r}")).code == 0
    with open_backend("sqlite:///keys.db") as backend:
        backend.open_store(ACCOUNT, pickle_key=other).close()


def test_a_store_of_the_programs_own_is_not_replaced_in_silence() -> None:
    ended = start(PROGRAM.format(store="SqliteMemoryStore", more=""))
    assert ended.code == 1
    assert "SqliteMemoryStore, which is neither" in ended.err


@pytest.mark.parametrize("options", [(), ("--production",)])
@pytest.mark.parametrize("store", ["SqliteStore", "DefaultStore"])
def test_a_store_that_the_program_opens_itself_is_ours(store: str, options: tuple[str, ...]) -> None:
    program = OPENS_A_STORE.format(store=store, opened=store, more="")
    first, again = start(program, options=options), start(program, options=options)
    assert (first.code, first.err) == (0, "")
    assert first.out == again.out
    assert first.out.endswith(" [] store\n")
    with open_backend("sqlite:///keys.db") as backend:
        assert list(backend.accounts()) == [ACCOUNT]
        backend.open_store(ACCOUNT, pickle_key=KEY).close()


def test_a_pickle_key_of_a_store_that_the_program_opens_itself_stays() -> None:
    other = new_pickle_key()
    more = f", pickle_key={other!r}"
    assert start(OPENS_A_STORE.format(store="SqliteStore", opened="SqliteStore", more=more)).code == 0
    with open_backend("sqlite:///keys.db") as backend:
        assert list(backend.accounts()) == [ACCOUNT]
        backend.open_store(ACCOUNT, pickle_key=other).close()


@pytest.mark.parametrize(("store", "opened"), [("SqliteStore", "Theirs"), ("SqliteMemoryStore", "SqliteMemoryStore")])
def test_another_store_that_the_program_opens_itself_is_not_replaced_in_silence(store: str, opened: str) -> None:
    ended = start(OPENS_A_STORE.format(store=store, opened=opened, more=""))
    assert ended.code == 1
    assert f"{opened}, which is neither" in ended.err


def test_arguments_are_the_programs(folder: Path) -> None:
    ended = start("import sys; print(sys.argv)", "--store", "x", "--", "-m", "--help")
    assert ended.out == "['program.py', '--store', 'x', '--', '-m', '--help']\n"
    ended = start("import sys; print(sys.argv)", "--store", options=("--",))
    assert ended.code == 0, ended.err


def test_modules_and_console_scripts(folder: Path) -> None:
    (folder / "mine.py").write_text("import sys; print(__name__, sys.argv[1:])")
    assert run_process("run", "-m", "mine", "-x").out == "__main__ ['-x']\n"
    assert run_process("run", "cryptostore", "--version").out.startswith("matrix-cryptostore ")


def test_a_script_of_this_environment_is_found_without_activating_it(folder: Path) -> None:
    python = folder / "environment" / "bin" / "python"
    venv.create(folder / "environment", symlinks=True)
    [packages] = folder.glob("environment/lib/*/site-packages")
    theirs = [f"import site; site.addsitedir({path!r})\n" for path in site.getsitepackages()]
    (packages / "installed.pth").write_text("".join(theirs))
    # As older distributions install it: a file, and no entry point.
    script = python.with_name("their-program")
    script.write_text(f"#!{python}\nimport sys; print(sys.argv[1:])\n")
    script.chmod(0o700)
    command = [str(python), "-m", "cryptostore", "run", "their-program", "--verbose"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.stderr) == ("['--verbose']\n", "")


@pytest.mark.parametrize(
    ("source", "code"),
    [("import sys; sys.exit(3)", 3), ("raise ValueError('theirs')", 1), ("import sys; sys.exit('said')", 1)],
)
def test_the_program_ends_as_it_does_alone(source: str, code: int) -> None:
    ended = start(source)
    assert ended.code == code
    assert "During handling" not in ended.err
    assert ("theirs" in ended.err) == ("theirs" in source)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_as_they_end_any_python_program(number: signal.Signals) -> None:
    Path("program.py").write_text("import time; print('up', flush=True); time.sleep(100)")
    command = [sys.executable, "-m", "cryptostore", "run", "program.py"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that run in the background have a SIGINT that is ignored, and so would the program.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # no thread of ours runs
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n"
        os.kill(running.pid, number)
        _, err = running.communicate()
    assert running.returncode == -number
    assert ("KeyboardInterrupt" in err) == (number == signal.SIGINT)


def test_a_second_client_of_a_device_fences_the_first_one() -> None:
    two = (
        PROGRAM.format(store="SqliteStore", more="")
        + """
first = client
client = AsyncClient("https://example.org", "@bot:example.org", "BOTDEVICE", "store")
client.restore_login("@bot:example.org", "BOTDEVICE", "token")
client.store.save_encrypted_rooms({"!a:example.org"})
first.store.save_encrypted_rooms({"!b:example.org"})
"""
    )
    ended = start(two)
    assert ended.code == 1
    assert "FencedOut" in ended.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing-of-this-name", "--json"], "there is no program 'nothing-of-this-name'"),
        (["-m", "nothing_of_this_name"], "has no module nothing_of_this_name"),
        (["--store", "memory://", "program.py"], "keeps nothing beyond its process"),
        (["--store", "postgresql://bot:canary@127.0.0.1:1/x?deadline=0.1", "program.py"], "127.0.0.1"),
        (["./theirs"], "belongs to another Python, /elsewhere/bin/python: install matrix-cryptostore into"),
        (["./long"], "belongs to another Python, /else where/bin/python3: install matrix-cryptostore into"),
        (["./shell"], "is not a Python program: it is run by /bin/sh"),
    ],
)
def test_what_cannot_be_started_is_named_in_one_line(words: list[str], said: str, folder: Path) -> None:
    (folder / "program.py").write_text("print('started')")
    (folder / "theirs").write_text("#!/elsewhere/bin/python\n")
    (folder / "long").write_text("#!/bin/sh\n'''exec' \"/else where/bin/python3\" \"$0\" \"$@\"\n' '''\n")
    (folder / "shell").write_text("#!/bin/sh\necho started\n")
    ended = run_process("run", *words)
    assert ended.code in (ExitCode.USAGE, ExitCode.UNAVAILABLE)
    assert ended.out == ""
    assert said in ended.err
    assert "canary" not in ended.err
    assert ended.err.count("\n") == 1


def test_a_first_line_that_names_no_interpreter_is_a_comment() -> None:
    ended = start("#!\nprint('started')")
    assert (ended.code, ended.out) == (0, "started\n")
