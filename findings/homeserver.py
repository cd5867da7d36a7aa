"""A Synapse on loopback, with SQLite, for the scripts here that need one."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

from signedjson.key import generate_signing_key, write_signing_keys

CONFIG = """
server_name: localhost
signing_key_path: {folder}/signing.key
media_store_path: {folder}/media
database: {{name: sqlite3, args: {{database: "{folder}/database/homeserver.db"}}}}
listeners: [{{port: {port}, type: http, bind_addresses: [127.0.0.1], resources: [{{names: [client]}}]}}]
log_config: {folder}/log.yaml
trusted_key_servers: []
federation_domain_whitelist: []
report_stats: false
enable_registration: true
enable_registration_without_verification: true
bcrypt_rounds: 4
macaroon_secret_key: not secret
form_secret: not secret
rc_registration: {{per_second: 1000, burst_count: 1000}}
rc_message: {{per_second: 1000, burst_count: 1000}}
"""


class Homeserver:
    """Starts when entered, stops when left, and may be started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._database = folder / "database"
        self._database.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        (folder / "homeserver.yaml").write_text(CONFIG.format(folder=folder, port=port))
        (folder / "log.yaml").write_text("version: 1\nroot: {level: ERROR}\n")
        with (folder / "signing.key").open("w") as file:
            write_signing_keys(file, [generate_signing_key("a")])

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "synapse.app.homeserver", "-c", str(self._folder / "homeserver.yaml")]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.__exit__()
                raise RuntimeError("Synapse did not start")
            time.sleep(0.1)
        return self

    def _answers(self) -> bool:
        try:
            return self.call("GET", "login")[0] == 200
        except OSError:
            return False

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def backup(self) -> None:
        shutil.copytree(self._database, self._folder / "backup")

    def restore(self) -> None:
        shutil.rmtree(self._database)
        shutil.copytree(self._folder / "backup", self._database)

    def call(self, method: str, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
        """A request to the client-server API: status and answer."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        request = urllib.request.Request(f"{self.url}/_matrix/client/v3/{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def register(self, user: str, device_id: str) -> str:
        """The access token of a new user."""
        body = {"username": user, "password": "long enough", "device_id": device_id, "auth": {"type": "m.login.dummy"}}
        status, answer = self.call("POST", "register", body)
        if status != 200:
            raise RuntimeError(answer)
        return str(answer["access_token"])
