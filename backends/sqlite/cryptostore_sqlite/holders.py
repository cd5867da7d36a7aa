"""Who has a database open, as Linux tells it. Other systems do not, nor other containers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from . import files

_LOCKS: Final = Path("/proc/locks")
_LOCK: Final = re.compile(r"^\d+: POSIX +\w+ +\w+ +(\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) ", re.MULTILINE)


def holders(path: Path) -> list[int]:
    """The processes that have the database at `path` open: each holds a lock on its -shm."""
    status = files.status_of(files.beside(path, "-shm"))
    if status is None:
        return []
    try:
        locks = _LOCK.findall(_LOCKS.read_text())
    except OSError:
        return []
    return sorted({int(pid) for pid, _, _, inode in locks if int(inode) == status.st_ino})
