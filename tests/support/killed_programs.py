"""A program that saves devices in a SQLite database, and is killed with it open.

`python killed_programs.py URL SAVES BETWEEN MORE TIMES` saves, does something to the database, saves on, and is killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Final

from cryptostore import Account, Changes, CryptoStore, Device, open_backend
from cryptostore_contract.handles import everything
from cryptostore_contract.samples import KEY
from cryptostore_sqlite.given import path_of

ACCOUNT: Final = Account("@alice:example.org", "ALICEDEVICE")

#: The ways to make backup.db beside the database; "closed" is a copy of it while no program has it open.
BACKUPS: Final = ["backup", "vacuum", "closed"]


def killed(url: str, saves: int, between: str = "", more: int = 0, *, times: int = 1) -> None:
    """Run the program until it is killed. `between` is a way to make a backup, or an SQL statement."""
    command = [sys.executable, __file__, url, str(saves), between, str(more), str(times)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def saved(url: str) -> int:
    """How many devices are in the database."""
    with open_backend(url) as backend:
        return len(everything(backend, ACCOUNT).get(Device, []))


def _save(store: CryptoStore, first: int, number: int) -> None:
    for device in range(first, first + number):
        store.apply(Changes([Device("@bob:example.org", f"D{device}")]))


def _do(between: str, path: Path) -> None:
    backup = path.with_name("backup.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        if between == "backup":
            with closing(sqlite3.connect(backup)) as into:
                connection.backup(into)
        elif between == "vacuum":
            backup.unlink(missing_ok=True)
            connection.execute("VACUUM INTO ?", [str(backup)])
        else:
            connection.execute(between)


def _main(url: str, saves: int, between: str, more: int, times: int) -> None:
    with open_backend(url) as backend, backend.open_store(ACCOUNT, pickle_key=KEY) as store:
        _save(store, 0, saves)
        if between not in ("", "closed"):
            for _ in range(times):
                _do(between, path_of(url))
        if between != "closed":
            _save(store, saves, more)
            os.kill(os.getpid(), signal.SIGKILL)
    shutil.copyfile(path_of(url), path_of(url).with_name("backup.db"))
    with open_backend(url) as backend, backend.open_store(ACCOUNT, pickle_key=KEY) as store:
        _save(store, saves, more)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
