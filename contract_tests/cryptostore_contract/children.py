"""The parent's side of the child processes in `worker`."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, NamedTuple

from cryptostore import Account, Changes

from .samples import ALICE
from .worker import ACCOUNT_VARIABLE, URL_VARIABLE

#: Seconds that any child is given before it counts as hanging.
_PATIENCE: Final = 120.0

#: How a child ends that a task of `worker` kills.
_KILLED: Final = (-signal.SIGKILL, -signal.SIGALRM)


class Child:
    """A running child process, its lines so far, and what it wrote to its standard error."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self._process = process
        self._errors = errors
        self.lines: list[str] = []

    def line(self) -> str:
        """The next line that the child says; fails if it ends instead."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        # Half a line is what a killed child did not finish saying.
        assert line.endswith("\n"), f"the child ended after {self.lines[-3:]}:\n{self.error()}"
        self.lines.append(line[:-1])
        return line[:-1]

    def go(self) -> None:
        """Give the child the word that it waits for."""
        self.tell("go")

    def tell(self, line: str) -> None:
        """A line for the child to read."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL, and every line that the child still said."""
        self._process.kill()
        self._drain()

    def finish(self) -> list[str]:
        """All lines of a child that ends by itself; fails if it ends with an error."""
        self._drain()
        assert self._process.returncode == 0, self.error()
        return self.lines

    def dies(self) -> list[str]:
        """All lines of a child that is killed at a moment of its task; fails if it ends in any other way."""
        self._drain()
        assert self._process.returncode in _KILLED, f"ended with {self._process.returncode}:\n{self.error()}"
        return self.lines

    def end(self) -> list[str]:
        """All lines of a child that ends by itself, in whatever way."""
        self._drain()
        return self.lines

    def _drain(self) -> None:
        assert self._process.stdout is not None
        rest = self._process.stdout.read()
        self._process.wait(_PATIENCE)
        self.lines += [line[:-1] for line in rest.splitlines(keepends=True) if line.endswith("\n")]

    def error(self) -> str:
        """The end of what the child wrote to its standard error."""
        self._errors.seek(0)
        return self._errors.read()[-4_000:]


def _paths() -> str:
    """Where this process finds its modules, so that a child tests the same copy of each."""
    inherited = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return os.pathsep.join(dict.fromkeys(str(Path(path).absolute()) for path in [*inherited, *sys.path]))


@contextmanager
def child(url: str, account: Account, *task: str) -> Iterator[Child]:
    """A child at one of the tasks of `worker`; killed at the end of the block if it still runs."""
    named = {URL_VARIABLE: url, ACCOUNT_VARIABLE: f"{account.user_id}\n{account.device_id}", "PYTHONPATH": _paths()}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            # Without the working folder, in which another copy of what is tested may be.
            [sys.executable, "-P", "-m", "cryptostore_contract.worker", *task],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | named,
        ) as process,
    ):
        try:
            yield Child(process, errors)
        finally:
            process.kill()


class Death(NamedTuple):
    """What a killed process said: the epoch in which it owned the account, and whether its batch was acknowledged."""

    epoch: int
    answered: bool


class Doomed:
    """Processes that each apply one batch and are killed at it; forked, since starting Python costs more."""

    def __init__(self, parent: Child) -> None:
        self._parent = parent

    def kill(self, account: Account, owner: str, changes: Changes, moment: str) -> Death:
        """Let a process own an account, apply a batch, and be killed at a moment of `worker.die_applying`."""
        said = self._carried_out(-signal.SIGKILL, account, owner, changes, moment)
        return Death(int(said["epoch"]), "applied" in said)

    def events(self, account: Account, changes: Changes) -> int:
        """How many events a batch has; it is applied."""
        return int(self._carried_out(0, account, "nobody", changes, "0")["applied"])

    def _carried_out(self, as_expected: int, *order: object) -> dict[str, str]:
        """What a process said by its first words; fails if it did not end as expected."""
        self._parent.tell(pickle.dumps(order).hex())
        said: dict[str, str] = {}
        while "ended" not in said:
            word, _, value = self._parent.line().partition(" ")
            said[word] = value
        assert said["ended"] == f"{as_expected}", f"ended with {said['ended']}:\n{self._parent.error()}"
        return said


class Starts:
    """Processes that each open the database, and of which one after the other is killed; forked as well."""

    def __init__(self, parent: Child) -> None:
        self._parent = parent

    def kill_behind(self, step: int) -> bool:
        """Kill a start behind a step, or let it go on to its end where it has fewer; fails if it ends with an error."""
        self._parent.tell(f"{step}")
        _, _, ended = self._parent.line().partition(" ")
        assert ended in ("0", f"{-signal.SIGKILL}"), f"ended with {ended}:\n{self._parent.error()}"
        return ended != "0"


@contextmanager
def starts(url: str, account: Account, *, own: bool = False) -> Iterator[Starts]:
    """Starts of a program that are killed, on one database; some go on to own the account."""
    with child(url, account, "fork-owning-starts" if own else "fork-starts") as parent:
        yield Starts(parent)


@contextmanager
def doomed(url: str) -> Iterator[Doomed]:
    """Processes to be killed on one database, whose accounts are named one by one."""
    with child(url, ALICE, "fork") as parent:
        yield Doomed(parent)
