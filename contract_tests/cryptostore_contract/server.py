"""What harnesses of servers have in common: a proxy before the server, a process that may be broken, certificates.

class MyServer(ServerProcess):
    def command(self) -> list[str]: ...
    def is_ready(self) -> bool: ...

class MyHarness(OwnServerHarness):
    name = "mydb"

    def __init__(self, server: MyServer) -> None:
        super().__init__(("127.0.0.1", server.port))
        self._server = server
        ...             # make a database of a new name

    @property
    def server(self) -> MyServer:
        return self._server

    @property
    def url(self) -> str:
        return f"mydb://user@127.0.0.1:{self.proxy.port}/{self.database}"

    def drop(self) -> None:
        ...             # and remove it
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

from .harness import Ability, Harness
from .proxy import Proxy, Target

#: Seconds for a server to start or to end.
_SECONDS: Final = 60
_PAUSE: Final = 0.02
_PR_SET_PDEATHSIG: Final = 1


class ServerHarness(Harness):
    """A harness for a server that is not ours to stop: every connection by `url` goes through a proxy.

    A subclass makes a database of its own in `__init__`, puts the proxy's port into `url`, and drops the database.
    """

    abilities: ClassVar[frozenset[Ability]] = frozenset(
        {
            *(Ability.REOPEN, Ability.OTHER_PROCESS, Ability.PROCESSES_AT_ONCE),
            *(Ability.CUT_CONNECTIONS, Ability.SILENT_NETWORK, Ability.PROXY),
        }
    )

    def __init__(self, address: Target) -> None:
        self._proxy: Final = Proxy(address)

    @property
    def proxy(self) -> Proxy:
        return self._proxy

    def cut_connections(self) -> int:
        return self._proxy.cut()

    @contextlib.contextmanager
    def silent_network(self) -> Iterator[None]:
        with self._proxy.silent():
            yield

    def close(self) -> None:
        self._proxy.close()
        self.drop()

    @abstractmethod
    def drop(self) -> None:
        """Remove the test's database."""


class OwnServerHarness(ServerHarness):
    """A harness for a server of the test run's own."""

    abilities: ClassVar[frozenset[Ability]] = ServerHarness.abilities | {
        *(Ability.FROZEN_SERVER, Ability.STOP_SERVER, Ability.KILL_SERVER),
    }

    @property
    @abstractmethod
    def server(self) -> ServerProcess:
        """The server under test."""

    @contextlib.contextmanager
    def frozen_server(self) -> Iterator[None]:
        with self.server.frozen():
            yield

    def stop_server(self) -> None:
        self.server.stop()

    def kill_server(self) -> None:
        self.server.kill()

    def start_server(self) -> None:
        self.server.start()

    def close(self) -> None:
        self.server.thaw()
        self.server.start()
        super().close()


class ServerProcess(ABC):
    """A server, and its children, as a child of this process, with which it ends.

    `log` takes what it says. Raises `error`, which is a RuntimeError, where it does not start.
    """

    #: What stops it in good order, and what it gets when this process dies.
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    death_signal: ClassVar[signal.Signals] = signal.SIGKILL
    error: ClassVar[type[RuntimeError]] = RuntimeError

    def __init__(self, log: Path) -> None:
        self.log: Final = log
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen: list[int] = []

    @abstractmethod
    def command(self) -> list[str]:
        """What starts it in the foreground, always on the same data and port."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether it accepts connections."""

    def start(self) -> None:
        """Start the server and wait until it accepts connections; one that runs is left alone."""
        if self._process is not None:
            return
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=self._die_with_parent,  # nothing between fork and exec takes a lock
                # A terminal's Ctrl-C is for pytest, which then stops the server in good order.
                start_new_session=True,
            )
        self._wait_until_ready(self._process)

    def stop(self) -> None:
        """Stop in good order."""
        self.end(self.stop_signal)

    def kill(self) -> None:
        """SIGKILL the server and its children, and wait until all are gone."""
        process = self._process
        if process is None:
            return
        # Or it would start others in their place, which hold what the next start needs.
        process.send_signal(signal.SIGSTOP)
        children = self._children(process.pid)
        _signal(children, signal.SIGKILL)
        self.end(signal.SIGKILL)
        _wait_until_gone(children)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all of the server's processes in their tracks (SIGSTOP) while the context is open."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def freeze(self) -> None:
        """SIGSTOP the server, then its children, so that none is added in between."""
        if self._process is None:
            raise self.error("the test's server is not running")
        os.kill(self._process.pid, signal.SIGSTOP)
        children = self._children(self._process.pid)
        _signal(children, signal.SIGSTOP)
        self._frozen = [self._process.pid, *children]

    def thaw(self) -> None:
        """Let a frozen server go on; one that is not frozen is left alone."""
        _signal(self._frozen, signal.SIGCONT)
        self._frozen = []

    def end(self, number: signal.Signals) -> None:
        """Send a signal, and wait until the server has ended."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def tail(self) -> str:
        """The end of the server's log."""
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else "(no log)"

    def _die_with_parent(self) -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, self.death_signal)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        ends = time.monotonic() + _SECONDS
        while time.monotonic() < ends:
            if process.poll() is not None:
                self._process = None
                raise self.error(f"{process.args!r} ended at once: {self.tail()}")
            if self.is_ready():
                return
            time.sleep(_PAUSE)
        raise self.error(f"{process.args!r} did not start in {_SECONDS} s: {self.tail()}")

    def _children(self, process: int) -> list[int]:
        listing = Path(f"/proc/{process}/task/{process}/children")
        if listing.exists():
            return [int(pid) for pid in listing.read_text().split()]
        # Elsewhere than on Linux, and in kernels built without that file.
        command = ["pgrep", "-P", str(process)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        return [int(pid) for pid in answer.stdout.split()]


class Certificates(NamedTuple):
    """Files in PEM: the authority that signed the server's certificate, one that did not, the certificate, its key."""

    authority: Path
    stranger: Path
    chain: Path
    key: Path


def certificates(folder: Path, host: str) -> Certificates:
    """A certificate for a host, and two authorities. Takes `trustme`, which the extra `server` installs."""
    from trustme import CA  # only tests of encryption need it

    made = Certificates(*(folder / f"{name}.pem" for name in ("authority", "stranger", "server", "key")))
    authority = CA()
    authority.cert_pem.write_to_path(str(made.authority))
    CA().cert_pem.write_to_path(str(made.stranger))
    certificate = authority.issue_cert(host)
    made.key.touch(mode=0o600)
    certificate.private_key_pem.write_to_path(str(made.key))
    made.chain.write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
    return made


def _signal(processes: list[int], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def _wait_until_gone(processes: list[int]) -> None:
    # Children of a killed server may hold its shared memory, and the next start would refuse.
    ends = time.monotonic() + _SECONDS
    while any(map(_runs, processes)) and time.monotonic() < ends:
        time.sleep(_PAUSE)


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    # A zombie waits for its new parent to notice; it holds nothing any more.
    return state not in "ZX"
