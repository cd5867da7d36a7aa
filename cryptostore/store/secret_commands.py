"""Secrets that another program hands out: a password manager, or the client of a vault."""

from __future__ import annotations

import os
import selectors
import shlex
import subprocess
import time
from typing import IO, Final

from cryptostore.errors import ConfigurationError

#: Seconds. Long enough for a person to unlock a password manager.
DEADLINE: Final = 60.0
_MOST_BYTES: Final = 64 * 1024


def output_of(command: str, source: str, deadline: float = DEADLINE) -> bytes:
    """What a program writes to its standard output. It is started without a shell, and can read nothing.

    Its standard error is ours: it may tell a person what to do. `source` is where the command was given. Raises
    ConfigurationError, which holds nothing of the command or its output, for a program that cannot be started, fails,
    writes more than 64 KiB, or is not done after `deadline` seconds; it is killed then.
    """
    ends = time.monotonic() + deadline
    try:
        with _started(command, source) as process:
            try:
                output = _read(process.stdout, ends)
                if len(output) > _MOST_BYTES:
                    raise ConfigurationError(f"the command in {source} writes more than 64 KiB; it must write one line")
                code = process.wait(max(0.0, ends - time.monotonic()))
            finally:
                process.kill()
    except (TimeoutError, subprocess.TimeoutExpired):
        raise ConfigurationError(
            f"the command in {source} was not done after {deadline:g} seconds, and was ended; run it yourself to see "
            "what it waits for"
        ) from None
    if code:
        how = f"with the exit code {code}" if code > 0 else f"by the signal {-code}"
        raise ConfigurationError(
            f"the command in {source} ended {how}; what it wrote to standard error says why, if it wrote anything"
        )
    return output


def _started(command: str, source: str) -> subprocess.Popen[bytes]:
    words = _words(command, source)
    try:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)  # noqa: S603  # the user's own
    except (OSError, ValueError) as error:
        # Not its name: a key that was put into the wrong variable would be one.
        reason = getattr(error, "strerror", None) or "it is no name of a program"
        raise ConfigurationError(
            f"the command in {source} cannot be started: {reason}; give the program with its path, and no shell syntax"
        ) from None


def _words(command: str, source: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigurationError(f"the command in {source} is not understood: {error}") from None
    if not words:
        raise ConfigurationError(f"the command in {source} is empty; give a program and its arguments")
    return words


def _read(pipe: IO[bytes] | None, ends: float) -> bytes:
    """All that comes, or a byte more than may come. Raises TimeoutError."""
    assert pipe is not None  # noqa: S101  # it was asked for
    output = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while len(output) <= _MOST_BYTES:
            if not selector.select(max(0.0, ends - time.monotonic())):
                raise TimeoutError
            chunk = os.read(pipe.fileno(), _MOST_BYTES)
            if not chunk:
                break
            output += chunk
    return output
