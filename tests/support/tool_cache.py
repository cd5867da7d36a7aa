"""Where tests keep the tools that they install: once for all runs, and by one process at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_CACHE_VARIABLE: Final = "CRYPTOSTORE_TEST_CACHE"


def cache_folder() -> Path:
    """The folder to install into; CRYPTOSTORE_TEST_CACHE may name it."""
    if named := os.environ.get(_CACHE_VARIABLE):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "matrix-cryptostore"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Workers of pytest-xdist begin together, and only one may install."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
