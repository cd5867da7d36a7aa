"""`cryptostore contract` in a process of its own, left to end or interrupted."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

#: Few cases, so that this takes no minute; a verdict cannot be PASS then.
FEW: Final[Mapping[str, str]] = {"PYTEST_ADDOPTS": "-k not_found"}

_COMMAND: Final = (sys.executable, "-c", "from cryptostore.cli import main; main()", "contract")
_PATIENCE: Final = 120.0

#: A case in which the first to open the database is a child process.
_CHILD_FIRST: Final[Mapping[str, str]] = {"PYTEST_ADDOPTS": "-k this_process_reads_what_another_wrote"}


def _hear() -> None:
    """Hear of Ctrl-C. A shell that started the tests in the background lets its children ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def run(*words: str, env: Mapping[str, str] = FEW, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*_COMMAND, *words],
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        preexec_fn=_hear,
    )


def interrupt(url: str, processes: str, number: signal.Signals, is_at_work: Callable[[], bool]) -> int:
    """Send a signal to the command once cases run and it is at work, and return how it ended."""
    with subprocess.Popen(
        [*_COMMAND, url, "--processes", processes], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=_hear
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


def interrupt_over_an_orphan(url: str) -> int:
    """Kill a process of the command while a child of it starts, interrupt the command, and return how it ended.

    The child gets no further until the command has had the time to end without it; at the return it has ended, too.
    """
    with subprocess.Popen(
        [*_COMMAND, url, "--processes", "2"],
        env=os.environ | _CHILD_FIRST,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        parent, orphan = _grandchild(running)
        os.kill(orphan, signal.SIGSTOP)
        handle = os.pidfd_open(orphan)
        os.kill(parent, signal.SIGKILL)
        running.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(5)
        os.kill(orphan, signal.SIGCONT)
        assert select.select([handle], [], [], _PATIENCE)[0], "the child did not end"
        os.close(handle)
    return running.returncode


def _grandchild(running: subprocess.Popen[bytes]) -> tuple[int, int]:
    """The first child of the suite in one of the command's processes: its parent and itself."""
    ends = time.monotonic() + _PATIENCE
    while time.monotonic() < ends and running.poll() is None:
        for parent in _children_of(running.pid):
            for child in _children_of(parent):
                if b"cryptostore_contract.worker" in _read(Path(f"/proc/{child}/cmdline")):
                    return parent, child
        time.sleep(0.01)
    raise AssertionError("no case started a child")


def _children_of(pid: int) -> list[int]:
    # Not by a glob, which raises for a thread that ends meanwhile.
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []
    return [int(child) for thread in threads for child in _read(thread / "children").split()]


def _read(path: Path) -> bytes:
    """A file of the system's about a process, which is empty once that has ended."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
