"""A real homeserver for a test run: Synapse on SQLite, listening on this machine only, a child of this process.

It reaches no other server, and nothing of it outlives the run: it asks the kernel to be stopped when its parent dies.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cryptostore_contract.ports import free_port
from homeserver_install import NoHomeserver, synapse_python
from homeserver_settings import Setting, settings

_STARTUP_SECONDS: Final = 90
_STOP_SECONDS: Final = 20
_PR_SET_PDEATHSIG: Final = 1


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _environment() -> dict[str, str]:
    # Whatever points Python at this tree's packages is not meant for Synapse.
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


class Homeserver:
    """One Synapse with a data folder of its own."""

    def __init__(self) -> None:
        self._python = synapse_python()
        self.folder = Path(tempfile.mkdtemp(prefix="cs-synapse-"))
        self.port = free_port()
        self.url: Final = f"http://127.0.0.1:{self.port}"
        self.registration_secret: Final = secrets.token_hex()
        #: All that it is told; the rest are Synapse's own defaults.
        self.settings: Final = self._chosen()
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._configure()
            self._start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop the server and remove its data."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def name(self) -> str:
        """The second part of its users' ids."""
        return next(str(setting.value) for setting in self.settings if setting.option == "server_name")

    def tail(self) -> str:
        """The end of the server's log."""
        log = self.folder / "server.log"
        return log.read_text(errors="replace")[-3000:] if log.exists() else "(no log)"

    def differing(self) -> set[str]:
        """What this server runs with and an unconfigured one does not, by the names of Synapse's own configuration."""
        assert self._process is not None
        _, _, _, *arguments = Path(f"/proc/{self._process.pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
        command = [str(self._python), str(Path(__file__).with_name("homeserver_comparison.py")), *arguments]
        done = subprocess.run(command, cwd=self.folder, env=_environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return set(json.loads(done.stdout))

    def _chosen(self) -> Sequence[Setting]:
        return settings(self.folder, self.port, self.registration_secret)

    def _configure(self) -> None:
        seed = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        (self.folder / "signing.key").write_text(f"ed25519 a_test {seed}\n")
        self._write("log.yaml", _LOGGING)
        self._write("homeserver.yaml", {setting.option: setting.value for setting in self.settings})

    def _write(self, name: str, content: dict[str, Any]) -> None:
        # JSON is YAML.
        (self.folder / name).write_text(json.dumps(content, indent=1))

    def _start(self) -> None:
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._python), "-m", "synapse.app.homeserver", "-c", str(self.folder / "homeserver.yaml")],
                cwd=self.folder,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,  # nothing between fork and exec takes a lock
                start_new_session=True,
            )
        self._wait_until_ready(self._process)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        ends = time.monotonic() + _STARTUP_SECONDS
        while time.monotonic() < ends:
            if process.poll() is not None:
                raise NoHomeserver(f"Synapse ended at once: {self.tail()}")
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"{self.url}/_matrix/client/versions", timeout=5),
            ):
                return
            time.sleep(0.05)
        raise NoHomeserver(f"Synapse did not start in {_STARTUP_SECONDS} s: {self.tail()}")


_LOGGING: Final[dict[str, Any]] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(name)s %(levelname)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"level": "WARNING", "handlers": ["console"]},
}
