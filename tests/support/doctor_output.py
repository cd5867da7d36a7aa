"""What `cryptostore doctor` says, for programs and on a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from typing import Any

from command_line import Ended


def faults(ended: Ended) -> dict[str, dict[str, Any]]:
    return {each["check"]: each for each in ended.document["findings"] if each["level"] != "ok"}


def fault(ended: Ended) -> dict[str, Any]:
    [found] = faults(ended).values()
    return found


def shown_on_a_terminal(width: int, *words: object) -> list[str]:
    """The lines on a terminal, without the controls that colour them."""
    terminal, its_end = pty.openpty()
    with os.fdopen(terminal, "rb", buffering=0) as shown:
        program = [sys.executable, "-c", "from cryptostore.cli import main; main()", *map(str, words)]
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(width)}
        with subprocess.Popen(program, stdout=its_end, stderr=its_end, env=environment):
            os.close(its_end)
            written = b"".join(iter(lambda: _chunk(shown), b""))
    return re.sub(r"\x1b\[[0-9;]*m", "", written.decode()).replace("\r", "").splitlines()


def _chunk(shown: Any) -> bytes:
    try:
        return bytes(shown.read(4_096))
    except OSError:
        # Linux says so when no writer is left.
        return b""
