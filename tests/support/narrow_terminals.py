"""Commands on a terminal of a given width."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.cells import cell_len

_STYLE: Final = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")
_ROWS: Final = 50
#: Seconds of silence after which a key that interrupts is pressed again.
_PATIENCE: Final = 5.0
_KEYS: Final = ("\x03", "\x04")


def lines_on_a_terminal(
    columns: int, *words: object, env: Mapping[str, str] | None = None, typed: str = ""
) -> list[str]:
    """What `cryptostore` writes to a terminal of this width, line by line, without colours; `typed` is its answer."""
    return ended_on_a_terminal(columns, *words, env=env, typed=typed)[1]


def ended_on_a_terminal(
    columns: int, *words: object, env: Mapping[str, str] | None = None, typed: str = ""
) -> tuple[int, list[str]]:
    """As `lines_on_a_terminal`, and before it the exit code."""
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
            preexec_fn=_take_the_terminal,
        ) as running,
    ):
        os.close(its_end)
        written, pressed = b"", b""
        # Linux says so when no writer is left.
        with contextlib.suppress(OSError):
            while True:
                if not select.select([shown], [], [], _PATIENCE)[0]:
                    # A ^C that comes just before Python waits for a line does not wake it: a person presses it again.
                    shown.write(pressed)
                    continue
                if not (chunk := shown.read(65_536)):
                    break
                written += chunk
                # What is typed before the blank, while it would be shown, is thrown away.
                if typed and written.endswith(b": "):
                    shown.write(typed.encode())
                    pressed, typed = typed.encode() if typed in _KEYS else b"", ""
    return running.returncode, [line.rstrip() for line in without_style(written.decode()).splitlines()]


def _take_the_terminal() -> None:
    # A person is asked on the terminal of the session, whatever standard input is.
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # Tests that run in the background have a SIGINT that is ignored, and so would the command.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


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
