"""The tutorial, typed as it stands on its page, in a terminal that has nothing but a system's own variables."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from homeserver_install import synapse_python
from tool_cache import cache_folder, locked

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "tutorial.md").read_text()

#: What makes a virtual environment and what installs into it: the two slow lines, of which there are two pairs.
_INSTALLING: Final = re.compile(r"^(?:python3 -m venv (?P<made>\S+)|\S+/bin/pip install --quiet .+)$", re.MULTILINE)
_PORT: Final = 8008
_SECONDS: Final = 600
#: Nothing else of the one who runs the tests; the rest says where packages come from.
_VARIABLES: Final = re.compile(r"(?:PIP_|SSL_|TMPDIR)\w*")


def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    environments = {"../my-bot/env": Path(sys.prefix), "synapse": synapse_python().parents[1]}
    assert [found["made"] for found in _INSTALLING.finditer(PAGE)] == ["../my-bot/env", None, "synapse", None]

    def linked(line: re.Match[str]) -> str:
        return f"ln -s {environments[line['made']]} {line['made']}" if line["made"] else ":"

    _type(_INSTALLING.sub(linked, PAGE), tmp_path)


@pytest.mark.soak
def test_the_tutorial_installs_what_it_needs(tmp_path: Path) -> None:
    _type(PAGE, tmp_path)


def _type(page: str, folder: Path) -> None:
    """Run all commands of a page, and find the texts that it shows in what they said."""
    clone = folder / "clone"
    clone.mkdir()
    for path in ROOT.iterdir():
        (clone / path.name).symlink_to(path)
    commands = "".join(re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    with locked(cache_folder() / "tutorial.lock"):
        _need_free_port()
        try:
            done = subprocess.run(
                ["bash", "-euc", commands],
                cwd=clone,
                env=_environment(folder),
                capture_output=True,
                text=True,
                check=False,
                timeout=_SECONDS,
            )
        finally:
            _stop(folder / "my-bot")
    assert done.returncode == 0, done.stdout + done.stderr
    shown = "".join(re.findall(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)).splitlines()
    pattern = r".*^".join(re.escape(line).replace("…", r"\w+") + "$\n" for line in shown)
    assert re.search("^" + pattern, done.stdout, re.MULTILINE | re.DOTALL), done.stdout
    # One device, before and after.
    assert len(set(re.findall(r"^ready as .+$", done.stdout, re.MULTILINE))) == 1
    assert {file.name for file in (folder / "my-bot").iterdir()} >= {"keys.db", "pickle-key", "bot.py", "homeserver.db"}


def _environment(folder: Path) -> dict[str, str]:
    given = {name: value for name, value in os.environ.items() if _VARIABLES.fullmatch(name)}
    python = Path(sys.executable).resolve().parent
    return given | {"PATH": f"{python}:/usr/local/bin:/usr/bin:/bin", "HOME": str(folder)}


def _need_free_port() -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", _PORT)) == 0:
            pytest.skip(f"not verified: another program listens on port {_PORT}, where the tutorial's homeserver would")


def _stop(folder: Path) -> None:
    """Stop what a failure left behind: each process works in the tutorial's folder, but Synapse, which says its id."""
    for place in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            if place.readlink() == folder:
                os.kill(int(place.parent.name), signal.SIGKILL)
    with suppress(OSError, ValueError):
        os.kill(int((folder / "homeserver.pid").read_text()), signal.SIGKILL)
