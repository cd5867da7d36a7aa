"""Where each checkout runs: a virtual environment of its own, made from a copy of what the checkout holds now."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: The distributions that are measured, by their folders in a checkout.
_DISTRIBUTIONS: Final = (".", "backends/sqlite", "backends/postgres")
_MAUTRIX: Final = ("mautrix[encryption]>=0.21,<0.22", "asyncpg>=0.30")
#: Settings for a person's own bots and tests, and for another Python, are not those of a measurement.
_NOT_PASSED_ON: Final = ("CRYPTOSTORE_", "POSTGRES_", "USE_POSTGRES_", "PG", "PYTHON")


class NoEnvironment(RuntimeError):
    """An environment cannot be made; the text says why and what to do."""


def cache_folder() -> Path:
    """Where environments are kept between runs."""
    named = os.environ.get("CRYPTOSTORE_TEST_CACHE")
    base = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "matrix-cryptostore-benchmarks"


def variables() -> dict[str, str]:
    """The environment variables of a worker."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_NOT_PASSED_ON)}


def checkout_python(checkout: Path, cache: Path) -> Path:
    """The Python that has what this checkout holds now; installs it if need be. Raises NoEnvironment."""
    checkout = checkout.resolve()
    folders = [checkout / name for name in _DISTRIBUTIONS]
    for folder in folders:
        if not (folder / "pyproject.toml").is_file():
            raise NoEnvironment(f"{folder} holds no pyproject.toml; name the folder of a checkout of this project")
    name = f"{checkout.name}-{_digest([str(checkout).encode()])}"
    return _made(cache / name, _digest(_contents(folders)), list(map(str, folders)))


def mautrix_python(cache: Path) -> Path:
    """The Python that has mautrix-python with asyncpg and python-olm. Raises NoEnvironment."""
    return _made(cache / "mautrix", " ".join(_MAUTRIX), list(_MAUTRIX))


def unequal_versions(pythons: list[Path]) -> dict[str, list[str]]:
    """The packages of which the environments have other versions, ours left out: they would be measured, too."""
    found = [_versions(python) for python in pythons]
    common = set.intersection(*(set(versions) for versions in found))
    versions = {name: [each[name] for each in found] for name in sorted(common) if not name.startswith("matrix-crypto")}
    return {name: each for name, each in versions.items() if len(set(each)) > 1}


def _versions(python: Path) -> dict[str, str]:
    script = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    versions: dict[str, str] = json.loads(_run([str(python), "-c", script]))
    return versions


def _made(folder: Path, content: str, requirements: list[str]) -> Path:
    """The Python of an environment with this content."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    venv, stamp = folder / version / "venv", folder / version / "content"
    python = venv / "bin" / "python"
    if not (stamp.is_file() and stamp.read_text() == content and python.exists()):
        # What an interrupted installation, or an earlier content, left behind is of no use.
        shutil.rmtree(venv, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(venv)])
        _run([str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", *requirements])
        stamp.write_text(content)
    return python


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables())
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise NoEnvironment(f"`{' '.join(command)}` failed: {' '.join(said[-3:])}")
    return done.stdout


def _contents(folders: list[Path]) -> Iterator[bytes]:
    for folder in folders:
        packages = sorted(folder.glob("cryptostore*/**/*.py"))
        for file in [folder / "pyproject.toml", *packages]:
            yield str(file).encode()
            yield file.read_bytes()


def _digest(parts: Iterator[bytes] | list[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]
