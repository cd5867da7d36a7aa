"""Running the command line, in this process or in one of its own."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest

from cryptostore.cli import main


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
