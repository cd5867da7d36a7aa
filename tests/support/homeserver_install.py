"""Synapse for the end-to-end tests, in a virtual environment of its own: it is AGPL, a tool and never a dependency."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tool_cache import cache_folder, locked

SYNAPSE_VERSION: Final = "1.163.2"

_PYTHON_VARIABLE: Final = "CRYPTOSTORE_TEST_SYNAPSE_PYTHON"
_INSTALL_SECONDS: Final = 600


class NoHomeserver(RuntimeError):
    """No Synapse can be had for the tests; the text says what to do."""


def synapse_python() -> Path:
    """The Python that can run Synapse; the first call installs it. Raises NoHomeserver.

    CRYPTOSTORE_TEST_SYNAPSE_PYTHON may name one that is there; CRYPTOSTORE_TEST_CACHE the folder to install into.
    """
    if named := os.environ.get(_PYTHON_VARIABLE):
        return _checked(Path(named))
    folder = cache_folder() / f"synapse-{SYNAPSE_VERSION}-py{sys.version_info.major}.{sys.version_info.minor}"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        complete = folder / "complete"
        if not complete.exists():
            _install(folder / "venv")
            complete.touch()
    return folder / "venv" / "bin" / "python"


def _checked(python: Path) -> Path:
    command = [str(python), "-c", "import synapse.app.homeserver"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NoHomeserver(f"{_PYTHON_VARIABLE}={python} cannot be run ({error}); {_remedy()}") from error
    if done.returncode != 0:
        raise NoHomeserver(f"{_PYTHON_VARIABLE}={python} has no Synapse ({_end(done.stderr)}); {_remedy()}")
    return python


def _install(venv: Path) -> None:
    # What an interrupted installation left behind is of no use.
    shutil.rmtree(venv, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(venv)])
    pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
    _run([*pip, "--only-binary", "matrix-synapse", f"matrix-synapse=={SYNAPSE_VERSION}"])


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoHomeserver(f"Synapse could not be installed ({error}); {_remedy()}") from error
    if done.returncode != 0:
        raise NoHomeserver(f"Synapse could not be installed ({_end(done.stderr)}); {_remedy()}")


def _remedy() -> str:
    return (
        f"pip install matrix-synapse=={SYNAPSE_VERSION} into a virtual environment of its own (240 MB), and set "
        f"{_PYTHON_VARIABLE} to that environment's python"
    )


def _end(text: str) -> str:
    return text.strip()[-500:]
