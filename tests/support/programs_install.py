"""Programs from PyPI, each in a virtual environment of its own, beside the wheels of this tree."""

from __future__ import annotations

import hashlib
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
    venv, installed = folder / "venv", folder / "installed"
    wanted = _contents(program, wheels)
    with locked(folder / "lock"):
        # Another worker's test may be running what is there.
        if not installed.exists() or installed.read_text() != wanted:
            installed.unlink(missing_ok=True)
            _install(venv, program, wheels)
            installed.write_text(wanted)
    return venv / "bin"


def _contents(program: Program, wheels: list[Path]) -> str:
    # Wheels of the same tree are the same bytes, whichever worker builds them.
    ours = [f"{wheel.name} {hashlib.sha256(wheel.read_bytes()).hexdigest()}" for wheel in sorted(wheels)]
    return "\n".join([*_requirements(program), *ours])


def _requirements(program: Program) -> list[str]:
    return [f"{program.distribution}=={program.version}", *program.beside]


def _install(venv: Path, program: Program, wheels: list[Path]) -> None:
    _uv("venv", "--quiet", "--clear", "--python", sys.executable, str(venv))
    # A wheel that is named by its path is taken for every mention of its name: on PyPI that could be anybody's.
    place = ["--python", str(venv / "bin" / "python")]
    _uv("pip", "install", "--quiet", *place, *_requirements(program), *map(str, wheels))


def _uv(*words: str) -> None:
    uv = shutil.which("uv")
    if uv is None:
        raise NoProgram("there is no uv on PATH: run these tests with `tox run -e programs`")
    done = subprocess.run([uv, *words], capture_output=True, text=True, check=False, timeout=_SECONDS)
    if done.returncode != 0:
        raise NoProgram(f"uv {' '.join(words)}: {done.stderr.strip()[-1000:]}")
