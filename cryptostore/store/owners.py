"""The name of a process, which an owner sees that is fenced out, and what such a name says about the process."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
from pathlib import Path
from typing import Final

#: Two containers of one host may share its name, and each have a process 1: these tell them apart.
_RUN: Final = secrets.token_hex(6)
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE: Final = Path("/proc/self/ns/pid")

_FORM: Final = re.compile(r".*:(?P<pid>[0-9]+) \[[0-9a-f]+@(?P<place>[0-9a-f]+)\]")
_LONGEST_HOST: Final = 200


def default_owner() -> str:
    """The name of this process: host, process id, and a mark that no other process has."""
    return f"{socket.gethostname()[:_LONGEST_HOST]}:{os.getpid()} [{_RUN}@{_place() or 'unknown'}]"


def is_gone(owner: str) -> bool:
    """Whether `owner` is the default name of a process that has certainly ended, or of this one."""
    if owner == default_owner():
        return True
    named, place = _FORM.fullmatch(owner), _place()
    # Elsewhere the same id is another process.
    if named is None or not place or named["place"] != place:
        return False
    pid = int(named["pid"])
    return pid == os.getpid() or not _is_running(pid)


def _place() -> str:
    """Where a process id means one process: this boot of the machine, and in it this container. Empty if unknown."""
    try:
        marks = f"{_BOOT.read_text().strip()} {_NAMESPACE.stat().st_ino}"
    except OSError:
        return ""
    return hashlib.sha256(marks.encode()).hexdigest()[:12]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True
