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
from pathlib import Path
from typing import Any, Final

from cryptostore_contract.ports import free_port
from homeserver_install import NoHomeserver, synapse_python

SERVER_NAME: Final = "test.invalid"

_STARTUP_SECONDS: Final = 90
_STOP_SECONDS: Final = 20
_PR_SET_PDEATHSIG: Final = 1
_UNLIMITED: Final = {"per_second": 100_000, "burst_count": 100_000}


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Homeserver:
    """One Synapse with a data folder of its own."""

    def __init__(self) -> None:
        self._python = synapse_python()
        self.folder = Path(tempfile.mkdtemp(prefix="cs-synapse-"))
        self.port = free_port()
        self.url: Final = f"http://127.0.0.1:{self.port}"
        self.registration_secret: Final = secrets.token_hex()
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

    def tail(self) -> str:
        """The end of the server's log."""
        log = self.folder / "server.log"
        return log.read_text(errors="replace")[-3000:] if log.exists() else "(no log)"

    def _configure(self) -> None:
        seed = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        (self.folder / "signing.key").write_text(f"ed25519 a_test {seed}\n")
        self._write("log.yaml", _LOGGING)
        self._write("homeserver.yaml", self._settings())

    def _write(self, name: str, content: dict[str, Any]) -> None:
        # JSON is YAML.
        (self.folder / name).write_text(json.dumps(content, indent=1))

    def _settings(self) -> dict[str, Any]:
        listener = {
            "port": self.port,
            "bind_addresses": ["127.0.0.1"],
            "type": "http",
            "tls": False,
            "resources": [{"names": ["client"], "compress": False}],
        }
        return {
            "server_name": SERVER_NAME,
            "public_baseurl": self.url,
            "listeners": [listener],
            "database": {"name": "sqlite3", "args": {"database": str(self.folder / "homeserver.db")}},
            "media_store_path": str(self.folder / "media"),
            "signing_key_path": str(self.folder / "signing.key"),
            "log_config": str(self.folder / "log.yaml"),
            "registration_shared_secret": self.registration_secret,
            "macaroon_secret_key": secrets.token_hex(),
            "form_secret": secrets.token_hex(),
            "report_stats": False,
            "trusted_key_servers": [],
            "suppress_key_server_warning": True,
            "federation_domain_whitelist": [],
            "presence": {"enabled": False},
            "bcrypt_rounds": 4,
            "caches": {"sync_response_cache_duration": "0s"},
            # All of a backlog in one sync: what does not fit, a bot never sees.
            "filter_timeline_limit": -1,
            **_LIMITS,
        }

    def _start(self) -> None:
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._python), "-m", "synapse.app.homeserver", "-c", str(self.folder / "homeserver.yaml")],
                cwd=self.folder,
                # Whatever points Python at this tree's packages is not meant for Synapse.
                env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
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


_LIMITS: Final[dict[str, Any]] = {
    **{
        f"rc_{name}": _UNLIMITED
        for name in (
            "message",
            "registration",
            "room_creation",
            "key_requests",
            "admin_redaction",
            "third_party_invite",
        )
    },
    "rc_login": dict.fromkeys(("address", "account", "failed_attempts"), _UNLIMITED),
    "rc_joins": dict.fromkeys(("local", "remote"), _UNLIMITED),
    "rc_joins_per_room": _UNLIMITED,
    "rc_invites": dict.fromkeys(("per_room", "per_user", "per_issuer"), _UNLIMITED),
}

_LOGGING: Final[dict[str, Any]] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(name)s %(levelname)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"level": "WARNING", "handlers": ["console"]},
}
