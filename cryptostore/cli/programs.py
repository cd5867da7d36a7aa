"""Python programs: finding one by the word that a user would start it with, and running it in this process."""

from __future__ import annotations

import os
import runpy
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib import metadata, util
from pathlib import Path
from typing import Any, Final

from cryptostore.errors import ConfigurationError

_REMEDY: Final = (
    "install matrix-cryptostore into that environment, and use its `cryptostore`, or its `python -m cryptostore`"
)


class Program(BaseException):
    """A program that takes the place of the command. Raised, so that it runs outside of everything that we set up."""

    def __init__(self, name: str, arguments: Sequence[str], run: Callable[[], Any], folder: str | None = None) -> None:
        super().__init__(name)
        self._words = [name, *arguments]
        self._run = run
        self._folder = folder

    def start(self) -> None:
        """Run it, and exit as it does."""
        sys.argv[:] = self._words
        sys.excepthook = sys.__excepthook__
        if self._folder is not None:
            sys.path.insert(0, self._folder)
        sys.exit(self._run())


def find_module(name: str, arguments: Sequence[str]) -> Program:
    """`python -m NAME`. Raises ConfigurationError if there is no such module."""
    with suppress(FileNotFoundError):
        sys.path.insert(0, str(Path.cwd()))
    if not _is_there(name):
        raise ConfigurationError(f"{sys.executable} has no module {name}; is it installed in another environment?")
    return Program(name, arguments, partial(_run_module, name))


def find_program(word: str, arguments: Sequence[str]) -> Program:
    """A file, or a console script of this environment. Raises ConfigurationError for anything else."""
    file = Path(word)
    # Unlike a Path's own question, this does not raise.
    if os.path.isfile(file):  # noqa: PTH113
        return _program_in(file, arguments)
    for script in metadata.entry_points(group="console_scripts", name=word):
        return Program(word, arguments, partial(_call, script))
    on_path = shutil.which(word, path=_scripts()) or shutil.which(word)
    if on_path is None:
        raise _no_program(file)
    return _program_in(Path(on_path), arguments)


def _no_program(file: Path) -> ConfigurationError:
    try:
        file.stat()
    except FileNotFoundError:
        pass
    except OSError as error:
        return ConfigurationError(f"{file} cannot be read: {error.strerror}")
    return ConfigurationError(
        f"there is no program {str(file)!r}: give a file, the name of a console script, or `-m` and a module"
    )


def _program_in(file: Path, arguments: Sequence[str]) -> Program:
    python = _python_of(file)
    if python is not None and python.parent.resolve() != Path(sys.executable).parent.resolve():
        raise ConfigurationError(f"{file} belongs to another Python, {python}: {_REMEDY}")
    return Program(str(file), arguments, partial(_run_file, str(file)), str(file.resolve().parent))


def _python_of(file: Path) -> Path | None:
    """The interpreter that a script names by its path. Raises ConfigurationError if it is no Python, or unreadable."""
    try:
        with file.open("rb") as opened:
            first, second = opened.readline(512), opened.readline(512)
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from error
    if not first.startswith(b"#!"):
        if file.suffix == ".py" or b"\0" not in first:
            return None
        raise ConfigurationError(f"{file} is not a Python program")
    # Paths that are too long for the kernel stand in the second line.
    words = (second[len(b"'''exec'") :] if second.startswith(b"'''exec'") else first[2:]).decode(errors="replace")
    python = Path(words.strip().split('"')[1] if words.strip().startswith('"') else "".join(words.split()[:1]))
    if not python.name or (python.name == "env" and "python" in words):
        return None
    if not python.name.startswith("python"):
        raise ConfigurationError(f"{file} is not a Python program: it is run by {python}")
    return python


def _call(script: metadata.EntryPoint) -> Any:
    return script.load()()


def _scripts() -> str:
    # Where the PATH names it, the environment has been activated; where not, its programs are meant all the same.
    return str(Path(sys.executable).parent)


def _is_there(name: str) -> bool:
    try:
        return util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _run_module(name: str) -> None:
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _run_file(file: str) -> None:
    runpy.run_path(file, run_name="__main__")
