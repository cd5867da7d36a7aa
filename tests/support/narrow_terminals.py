"""Commands on a terminal of a given width."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.cells import cell_len

_STYLE: Final = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")
_ROWS: Final = 50


def lines_on_a_terminal(
    columns: int, *words: object, env: Mapping[str, str] | None = None, typed: str = ""
) -> list[str]:
    """What `cryptostore` writes to a terminal of this width, line by line, without colours; `typed` is its answer."""
    terminal, its_end = pty.openpty()
    fcntl.ioctl(its_end, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, columns, 0, 0))
    program = [sys.executable, "-c", "from cryptostore.cli import main; main()", *map(str, words)]
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    environment |= {"TERM": "xterm", **(env or {})}
    with (
        os.fdopen(terminal, "rb+", buffering=0) as shown,
        subprocess.Popen(
            program,
            stdin=its_end,
            stdout=its_end,
            stderr=its_end,
            env=environment,
            start_new_session=True,
            # A person is asked on the terminal of the session, whatever standard input is.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        ),
    ):
        os.close(its_end)
        written = b""
        # Linux says so when no writer is left.
        with contextlib.suppress(OSError):
            while chunk := shown.read(65_536):
                written += chunk
                # What is typed before the blank, while it would be shown, is thrown away.
                if typed and written.endswith(b": "):
                    shown.write(typed.encode())
                    typed = ""
    return [line.rstrip() for line in without_style(written.decode()).splitlines()]


def without_style(text: str) -> str:
    """The text without what colours it and moves the cursor."""
    return _STYLE.sub("", text)


def too_wide(lines: list[str], columns: int) -> list[str]:
    """The lines that the terminal breaks."""
    return [line for line in lines if cell_len(line) > columns]


def helps(command: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command and group of the program."""
    yield before
    for name, found in getattr(command, "commands", {}).items():
        yield from helps(found, (*before, name))
