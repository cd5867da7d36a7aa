"""A program under `cryptostore run`, in processes of its own."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from nio.store import models

from programs_tried import Place, Program

_SECONDS: Final = 120
_LEFT_OUT: Final = ("PYTHON", "CRYPTOSTORE_", "POSTGRES_", "USE_POSTGRES", "MATRIX_", "XDG_", "VIRTUAL_ENV")
_NIOS_TABLES: Final = frozenset(
    model._meta.table_name for model in (models.Accounts, models.OlmSessions, models.MegolmInboundSessions)
)


class ProgramProcess:
    """Every process that was started of one program, in one folder."""

    def __init__(self, program: Program, commands: Path, folder: Path, options: Sequence[str], pickle_key: str) -> None:
        self._program = program
        self._commands = commands
        self.folder: Final = folder
        self._options = options
        self._pickle_key = pickle_key
        self._running: subprocess.Popen[bytes] | None = None

    def set_up(self, place: Place) -> None:
        """Write its configuration, and log in where that takes a command."""
        self.folder.mkdir()
        if self._program.files is not None:
            for name, text in self._program.files(place).items():
                (self.folder / name).write_text(text)
        if self._program.login is not None:
            self._run_to_its_end(self._program.login(place))

    def start(self) -> None:
        """A new process, which listens when this returns."""
        seen = self.log().count(self._program.ready)
        self._running = self._begin(self._program.command)
        self.until(lambda: self.log().count(self._program.ready) > seen)

    def send(self) -> None:
        """A new process, which sends something and has ended when this returns."""
        self._run_to_its_end(self._program.sending)

    def _run_to_its_end(self, words: Sequence[str]) -> None:
        self._running = self._begin(words)
        assert self._running.wait(_SECONDS) == 0, self.log()

    def _begin(self, words: Sequence[str]) -> subprocess.Popen[bytes]:
        command = [str(self._commands / "cryptostore"), "run", *self._options, *words]
        with self._log_file.open("ab") as log:
            return subprocess.Popen(
                command, env=self._environment(), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def until(self, wanted: Callable[[], bool]) -> None:
        """Wait while it lives."""
        ends = time.monotonic() + _SECONDS
        assert self._running is not None
        while not wanted():
            assert self._running.poll() is None, self.log()
            assert time.monotonic() < ends, self.log()
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL, wherever it is."""
        assert self._running is not None
        self._running.kill()
        assert self._running.wait() == -signal.SIGKILL, self.log()

    def close(self) -> None:
        """Kill what still runs."""
        if self._running is not None:
            self._running.kill()
            self._running.wait()

    def log(self) -> str:
        """What all of them wrote."""
        return self._log_file.read_text(errors="replace") if self._log_file.exists() else ""

    @property
    def _log_file(self) -> Path:
        return self.folder.with_suffix(".log")

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_LEFT_OUT)}
        # Programs that look for their files in the user's folder find this one.
        ours = {"HOME": str(self.folder), "PYTHONUNBUFFERED": "1", "CRYPTOSTORE_PICKLE_KEY": self._pickle_key}
        return kept | ours


def nios_stores(folder: Path) -> list[Path]:
    """The files in a folder that are databases of nio's own store."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and _is_nios_store(path)]


def _is_nios_store(path: Path) -> bool:
    with path.open("rb") as file:
        if file.read(15) != b"SQLite format 3":
            return False
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return not tables.isdisjoint(_NIOS_TABLES)
