"""Programs from PyPI, each in a virtual environment of its own, beside the wheels of this tree."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from programs_tried import Program
from tool_cache import cache_folder, locked

_ROOT: Final = Path(__file__).parents[2]
_OURS: Final = ("matrix_cryptostore-", "matrix_cryptostore_sqlite-", "matrix_cryptostore_postgres-")
_SECONDS: Final = 900


class NoProgram(RuntimeError):
    """A program cannot be installed; the text says why."""


def build_wheels(folder: Path) -> list[Path]:
    """Wheels of our distributions, built from this tree into an empty folder. Raises NoProgram."""
    _uv("build", "--quiet", "--all-packages", "--wheel", "--out-dir", str(folder), str(_ROOT))
    return [wheel for wheel in folder.glob("*.whl") if wheel.name.startswith(_OURS)]


def install(program: Program, wheels: list[Path]) -> Path:
    """The folder with the commands of a program and of ours; the first call makes it. Raises NoProgram."""
    python = f"py{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache_folder() / "programs" / f"{program.distribution}-{program.version}-{python}"
    folder.mkdir(parents=True, exist_ok=True)
    venv = folder / "venv"
    with locked(folder / "lock"):
        if not (venv / "bin" / "python").exists():
            _uv("venv", "--quiet", "--python", sys.executable, str(venv))
        # A wheel that is named by its path is taken for every mention of its name: on PyPI that could be anybody's.
        ours = [f"--reinstall-package={wheel.name.partition('-')[0]}" for wheel in wheels]
        place = ["--python", str(venv / "bin" / "python")]
        theirs = [f"{program.distribution}=={program.version}", *program.beside]
        _uv("pip", "install", "--quiet", *place, *ours, *theirs, *map(str, wheels))
    return venv / "bin"


def _uv(*words: str) -> None:
    uv = shutil.which("uv")
    if uv is None:
        raise NoProgram("there is no uv on PATH: run these tests with `tox run -e programs`")
    done = subprocess.run([uv, *words], capture_output=True, text=True, check=False, timeout=_SECONDS)
    if done.returncode != 0:
        raise NoProgram(f"uv {' '.join(words)}: {done.stderr.strip()[-1000:]}")
