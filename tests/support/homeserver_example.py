"""The example bot in processes of its own, as its page says."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from homeserver_bed import Device

_BOT: Final = Path(__file__).parents[2] / "examples" / "bot.py"
_OURS: Final = ("MATRIX_", "CRYPTOSTORE_", "POSTGRES_", "USE_POSTGRES")
_SECONDS: Final = 60


class ExampleBot:
    """Every process that was started for one device, in a folder without an `.env` file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, **variables: str) -> subprocess.Popen[bytes]:
        """A new process with these environment variables."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        with (self._folder / "bot.log").open("ab") as log:
            self._running.append(
                subprocess.Popen([sys.executable, str(_BOT)], env={**env, **variables}, cwd=self._folder, stderr=log)
            )
        return self._running[-1]

    def start_as(self, account: Device, **variables: str) -> subprocess.Popen[bytes]:
        """A new process for a device, which is ready when this returns."""
        key_file = self._folder / "pickle-key"
        key_file.write_text("a secret of this bot\n")
        ready = self.log().count("ready as")
        bot = self.start(
            MATRIX_HOMESERVER=account.config.homeserver,
            MATRIX_USER_ID=account.user.user_id,
            CRYPTOSTORE_URL=account.config.store,
            CRYPTOSTORE_PICKLE_KEY_FILE=str(key_file),
            **variables,
        )
        self.until(lambda: self.log().count("ready as") > ready)
        return bot

    def until(self, wanted: Callable[[], bool]) -> None:
        """Wait while the newest process lives."""
        ends = time.monotonic() + _SECONDS
        while not wanted():
            assert self._running[-1].poll() is None, self.log()
            assert time.monotonic() < ends, self.log()
            time.sleep(0.1)

    def log(self) -> str:
        """What all of them said."""
        log = self._folder / "bot.log"
        return log.read_text() if log.exists() else ""

    def close(self) -> None:
        """Kill what still runs."""
        for process in self._running:
            process.kill()
            process.wait()
