"""`cryptostore contract` in a process of its own, left to end or interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

#: Few cases, so that this takes no minute; a verdict cannot be PASS then.
FEW: Final[Mapping[str, str]] = {"PYTEST_ADDOPTS": "-k not_found"}

_COMMAND: Final = (sys.executable, "-c", "from cryptostore.cli import main; main()", "contract")
_PATIENCE: Final = 120.0


def run(*words: str, env: Mapping[str, str] = FEW, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*_COMMAND, *words], env=os.environ | env, capture_output=True, text=True, timeout=timeout, check=False
    )


def interrupt(url: str, processes: str, number: signal.Signals, is_at_work: Callable[[], bool]) -> int:
    """Send a signal to the command once cases run and it is at work, and return how it ended."""
    # A shell that started the tests in the background lets its children ignore this signal.
    hear = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        [*_COMMAND, url, "--processes", processes], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=hear
    ) as running:
        assert running.stdout is not None
        while (said := running.stdout.read(1)) not in (b".", b""):
            pass
        assert said, "no case ran"
        ends = time.monotonic() + _PATIENCE
        while not is_at_work():
            assert time.monotonic() < ends, "nothing is there that could be left behind"
            time.sleep(0.01)
        running.send_signal(number)
        running.stdout.read()
    return running.returncode
