"""Running the command line, in this process or in one of its own."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import pytest

from cryptostore.cli import main
from patience import wait_until


class Ended(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)


Run = Callable[..., Ended]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `cryptostore` with the given words in this process."""
    # Wide, so that no table breaks a text that a test looks for.
    monkeypatch.setenv("COLUMNS", "500")

    def run_here(*words: object) -> Ended:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        code = ended.value.code
        return Ended(code if isinstance(code, int) else 0, *capfd.readouterr())

    return run_here


def run_process(
    *words: object, env: Mapping[str, str] | None = None, timeout: float = 240, encoding: str = "utf-8"
) -> Ended:
    """Run `cryptostore` with the given words as users do."""
    done = subprocess.run(
        [sys.executable, "-c", "from cryptostore.cli import main; main()", *map(str, words)],
        env={**os.environ, "COLUMNS": "250", **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding=encoding,
        timeout=timeout,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def interrupted(
    *words: object, is_at_work: Callable[[int], bool], env: Mapping[str, str] | None = None, number: int = signal.SIGINT
) -> Ended:
    """Run `cryptostore` as users do, and send it a signal, as ^C does, once the process with its id is at work."""
    with subprocess.Popen(
        [sys.executable, "-c", "from cryptostore.cli import main; main()", *map(str, words)],
        env={**os.environ, "COLUMNS": "250", **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        # Tests that run in the background have a SIGINT that is ignored, and so would the command.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as running:
        try:
            wait_until(lambda: running.poll() is not None or is_at_work(running.pid))
            running.send_signal(number)
            return Ended(running.wait(60), *running.communicate())
        finally:
            running.kill()


def on_a_terminal(*words: object) -> str:
    """What `cryptostore` writes to a terminal as its standard error."""
    terminal, its_end = pty.openpty()
    with os.fdopen(terminal, "rb", buffering=0) as shown:
        program = [sys.executable, "-c", "from cryptostore.cli import main; main()", *map(str, words)]
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
        with subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=its_end, env=environment) as running:
            os.close(its_end)
            written = b""
            # Linux says so when no writer is left.
            with contextlib.suppress(OSError):
                while chunk := shown.read(4_096):
                    written += chunk
        assert running.returncode == 0, written
    return written.decode()
