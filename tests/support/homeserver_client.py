"""A client in a process of its own, from the side of the test that drives it."""

from __future__ import annotations

import itertools
import os
from dataclasses import asdict
from pathlib import Path
from typing import Final

from driven import ClientDied, ClientFailed, Driven
from homeserver_process import ClientProcess
from homeserver_worker import WorkerConfig

__all__ = ["Client", "ClientDied", "ClientFailed"]

_numbers: Final = itertools.count(1)


class Client(Driven):
    """One process of a matrix-nio client."""

    def __init__(self, config: WorkerConfig, folder: Path) -> None:
        self.config: Final = config
        log = folder / f"client-{os.getpid()}-{next(_numbers)}.log"
        super().__init__(ClientProcess(log), log)
        self._write(asdict(config))

    def texts(self) -> dict[str, str]:
        """What it read so far, by event id."""
        with self._changed:
            return {each["id"]: each["text"] for each in self.told if each["event"] == "message"}
