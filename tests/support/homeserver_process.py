"""Processes of clients, forked from a template."""

from __future__ import annotations

import atexit
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Final

from homeserver_template import NUMBER


class Template:
    """The process that clients are forked from."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        self._lock = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "homeserver_template", str(theirs.fileno())],
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def fork(self, descriptors: list[int]) -> int:
        """A new client with these standard streams and end of a pipe for how it ended; its process id."""
        with self._lock:
            socket.send_fds(self._control, [b"+"], descriptors)
            answer = self._control.recv(NUMBER.size, socket.MSG_WAITALL)
        if len(answer) < NUMBER.size:
            raise RuntimeError(f"the template of clients ended with {self._process.wait()}")
        return int(NUMBER.unpack(answer)[0])

    def close(self) -> None:
        """End the template. Clients end with their standard input."""
        self._control.close()
        self._process.wait()


@cache
def _template() -> Template:
    template = Template()
    atexit.register(template.close)
    return template


class ClientProcess:
    """One forked client: as much of `subprocess.Popen` as its user needs."""

    def __init__(self, log: Path) -> None:
        read_in, write_in = os.pipe()
        read_out, write_out = os.pipe()
        self._end, write_end = os.pipe()
        self.stdin: Final[IO[str]] = os.fdopen(write_in, "w")
        self.stdout: Final[IO[str]] = os.fdopen(read_out)
        self.returncode: int | None = None
        with log.open("wb") as errors:
            theirs = [read_in, write_out, errors.fileno(), write_end]
            try:
                self.pid: Final = _template().fork(theirs)
            finally:
                for descriptor in (read_in, write_out, write_end):
                    os.close(descriptor)

    def kill(self) -> None:
        """SIGKILL, if it is still there."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def poll(self) -> int | None:
        """How it ended; None if it did not."""
        with suppress(TimeoutError):
            return self.wait(0)
        return None

    def wait(self, timeout: float) -> int:
        """How it ended: minus the signal, or its exit code. Raises TimeoutError."""
        if self.returncode is None:
            if not select.select([self._end], [], [], timeout)[0]:
                raise TimeoutError(f"client {self.pid} did not end in {timeout:g} s")
            (self.returncode,) = NUMBER.unpack(os.read(self._end, NUMBER.size))
            os.close(self._end)
        return self.returncode
