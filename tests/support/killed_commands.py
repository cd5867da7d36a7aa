"""Commands that are killed by SIGKILL at random moments of their work, and what is left of an account afterwards.

`python killed_commands.py run REPORT NUMBER DELAY WORDS…` runs `cryptostore WORDS…`. Some seconds after its write of
that number to a database has begun, from 0 on, it kills itself, and no later write begins. With a number below 0 it
runs to its end, and reports how many writes there were and how long they took from first to last.

`python killed_commands.py check URL` verifies the only account in the database, and opens each of its sessions.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from cryptostore.cli import main
from cryptostore.store.backend import Backend
from cryptostore.store.interface import Database

#: What changes a database.
WRITES: Final = ("take_over", "commit", "delete")


class Work(NamedTuple):
    """What a command writes: how often, and in how many seconds."""

    writes: int
    seconds: float

    def moments(self, number: int, draw: random.Random) -> Iterator[tuple[int, float]]:
        """So many random moments of it, one in each part: at which write, and how long after its beginning."""
        for part in range(number):
            write = int(self.writes * draw.uniform(part, part + 1) / number)
            yield min(write, self.writes - 1), draw.uniform(0, self.seconds / self.writes)


class Left(NamedTuple):
    """What a new process finds of an account: how `verify` ended, and how many sessions open."""

    code: int
    sessions: int


def measured(report: Path, *words: object) -> Work:
    """Run a command to its end."""
    done = _run("run", report, -1, 0, *words)
    assert done.returncode == 0, done.stderr
    return Work(*json.loads(report.read_text()))


def killed(moment: tuple[int, float], *words: object) -> None:
    """Run a command until this moment of its work, at which it is killed."""
    done = _run("run", os.devnull, *moment, *words)
    assert done.returncode == -signal.SIGKILL, (moment, done.stdout, done.stderr)


def left(url: str, pickle_key: str) -> Left:
    """What a new process finds."""
    done = _run("check", url, CRYPTOSTORE_PICKLE_KEY=pickle_key)
    assert done.returncode == 0, done.stderr
    return Left(*json.loads(done.stdout.splitlines()[-1]))


def _run(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, __file__, *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment, stdin=subprocess.DEVNULL, check=False
    )


class _Killer:
    """Counts writes, and kills this process at one of them."""

    def __init__(self, number: int, delay: float) -> None:
        self._number, self._delay = number, delay
        self.writes = 0
        self.began = self.ended = 0.0

    def watch(self, database: Database) -> None:
        """Count the writes to this database, too."""
        for name in WRITES:
            setattr(database, name, self._watched(getattr(database, name)))

    def _watched(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any) -> Any:
            self.began = self.began or time.monotonic()
            if self.writes == self._number:
                threading.Timer(self._delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
            elif 0 <= self._number < self.writes:
                time.sleep(60)
            self.writes += 1
            try:
                return write(*arguments)
            finally:
                self.ended = time.monotonic()

        return watched


def _run_command(report: Path, number: int, delay: float, words: list[str]) -> None:
    killer, made = _Killer(number, delay), Backend.__init__

    def make(self: Backend, database: Database, **options: Any) -> None:
        killer.watch(database)
        made(self, database, **options)

    Backend.__init__ = make  # type: ignore[method-assign]
    try:
        main(words)
    finally:
        report.write_text(json.dumps([killer.writes, killer.ended - killer.began]))


def _check(url: str) -> None:
    from cryptostore import open_backend
    from cryptostore.nio import NioStore

    try:
        main(["verify", url])
    except SystemExit as ended:
        code = ended.code
    with open_backend(url) as backend:
        (account,) = backend.accounts()

    class AnyStore(NioStore):
        """Opens an account also where a client has to make it whole first."""

        _replaces_what_was_lost = True

    store = AnyStore(account.user_id, account.device_id, url, os.environ["CRYPTOSTORE_PICKLE_KEY"])
    opened = sum(1 for _ in store.load_inbound_group_sessions())
    store.close()
    print(json.dumps([code, opened]))  # noqa: T201  # what a child says goes to its parent


if __name__ == "__main__":
    if sys.argv[1] == "check":
        _check(sys.argv[2])
    else:
        _run_command(Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5:])
