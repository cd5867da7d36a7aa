"""Passwords and pickle keys stand in no list of processes: every user of a machine can read that."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from command_line import run_process
from nio_sources import ALICE, Client

PROGRAM = """
import os, secrets
from cryptostore.cli import main

secrets.token_urlsafe = lambda: os.environ["CANARY"]
main([os.environ["DATABASE"] if word == "URL" else word for word in {words!r}])
"""


def command_lines() -> set[str]:
    """The command lines of everything that runs now."""
    if not Path("/proc/self/cmdline").exists():
        return set(
            subprocess.run(["ps", "-A", "-ww", "-o", "args"], capture_output=True, text=True).stdout.splitlines()
        )
    found = set()
    # Not by a glob, which looks at each file itself and raises for a process that ends meanwhile.
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            found.add((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


def import_file(path: Path, url: str, key: str) -> None:
    """Bring an account into the database, for the commands that need one."""
    imported = run_process("import-nio", path, url, env={"CRYPTOSTORE_PICKLE_KEY": key})
    assert imported.code == 0, imported.err


@pytest.mark.parametrize(
    ("words", "starts", "code"),
    [
        (["demo", "--store", "URL", "--messages", "20", "--kills", "2"], "cryptostore.cli.demo.party", 0),
        (["contract", "URL", "--processes", "2"], "cryptostore_contract.worker", 1),
        (["import-nio", "nio.db", "URL"], "", 0),
        (["rekey", "URL", "--new-pickle-key-command", "cat new.key"], "", 0),
    ],
    ids=["demo", "contract", "import-nio", "rekey"],
)
def test_no_process_shows_a_password_or_a_pickle_key(
    words: list[str], starts: str, code: int, tmp_path: Path, postgres_url: str
) -> None:
    canary = secrets.token_hex(8)
    source = Client(tmp_path, ALICE, key=canary)
    source.close()
    if "rekey" in words:
        import_file(source.path, postgres_url, canary)
    (tmp_path / "new.key").write_text(f"new {canary}\n")
    place, _, schema = postgres_url.partition("?")
    environment = {
        "CANARY": canary,
        # The server does not ask for it.
        "DATABASE": f"{place}?{schema}&sslpassword={canary}",
        "CRYPTOSTORE_PICKLE_KEY": canary,
        "PYTEST_ADDOPTS": "-k a_new_process_reads",
    }
    seen: set[str] = set()
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(words=words)],
        env=os.environ | environment,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while process.poll() is None:
            seen |= command_lines()
        assert process.stderr is not None
        assert process.returncode == code, process.stderr.read()
    assert any("main([os.environ" in line for line in seen)
    assert any(starts in line for line in seen)
    assert not [line for line in seen if canary in line]
