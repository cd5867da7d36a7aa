"""Which processes work in the place of a run: it is cleared after the last has left, and none can come later.

A process that is killed leaves children behind, which would go on to make a schema that has just been dropped.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: Names the file on which every process of a run holds a lock; the kernel takes that back however the process ends.
VARIABLE: Final = "CRYPTOSTORE_CONTRACT_LIVE_PRESENCE"

#: Seconds after which the processes of a run are no longer waited for: each has ended long before, or hangs.
_PATIENCE: Final = 60.0
_PAUSE: Final = 0.05


@functools.cache
def attend() -> None:
    """Be present until this process ends, in the run that the environment names. Ends the process if that is over."""
    path = os.environ.get(VARIABLE)
    if path is not None and not _is_admitted(path):
        sys.exit("the run that this process belongs to is over")


@contextlib.contextmanager
def awaited(folder: Path) -> Iterator[None]:
    """A run whose processes have all ended when the block has, and which no other enters any more."""
    path = folder / "presence"
    path.touch()
    os.environ[VARIABLE] = str(path)
    try:
        yield
    finally:
        del os.environ[VARIABLE]
        _close(path)


def _is_admitted(path: str) -> bool:
    try:
        # Left open for good: the lock lasts as long.
        descriptor = os.open(path, os.O_RDWR)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, BlockingIOError):
        return False
    # The file may have been removed after it was opened.
    return Path(path).exists()


def _close(path: Path) -> None:
    with path.open("r+b") as file:
        ends = time.monotonic() + _PATIENCE
        while not _is_ours_alone(file.fileno()) and time.monotonic() < ends:
            time.sleep(_PAUSE)
        path.unlink()


def _is_ours_alone(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
