"""A person's client as Element has one, from the side of the test that drives it."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from driven import Driven
from homeserver_api import User
from peer_install import peer_command

_numbers: Final = itertools.count(1)


@dataclass(frozen=True)
class Message:
    """A message as the peer shows it."""

    id: str
    sender: str
    #: None where it could not be decrypted.
    text: str | None
    #: Why not, by the SDK's own code.
    failure: str | None
    #: 0 none, 1 grey, 2 red.
    colour: int | None
    #: The SDK's own number of the shield's reason.
    reason: int | None


class Peer(Driven):
    """One process of matrix-js-sdk with its keys in memory, which talks to signed devices only unless told."""

    def __init__(self, homeserver: str, user: User, folder: Path) -> None:
        self.user: Final = user
        self.device_id = ""
        #: Of the secret storage that it made.
        self.recovery_key = ""
        self._homeserver = homeserver
        log = folder / f"peer-{os.getpid()}-{next(_numbers)}.log"
        super().__init__(_NodeProcess(log), log)

    def login(self, isolation: bool = True) -> None:
        """Log in as a new device; without `isolation` it talks to devices that their owners have not signed, too."""
        login = {"homeserver": self._homeserver, "user": self.user.user_id, "password": self.user.password}
        self.device_id = self.call("login", **login, isolation=isolation)["device_id"]

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """As a laptop that is closed: it does nothing, and wakes up with all that it had."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def read(self, room: str, event_id: str) -> Message:
        """A message, once it is decrypted. Raises ClientFailed if it never is."""
        return Message(**self.call("read", room=room, message=event_id))

    def fails(self, room: str, event_id: str) -> Message:
        """A message, once it could not be decrypted. Raises ClientFailed if that never happens."""
        return Message(**self.call("read", room=room, message=event_id, failing=True))

    def messages(self, room: str, retry: bool = False) -> dict[str, Message]:
        """The encrypted messages of a room that came so far; `retry` tries to decrypt once more what failed."""
        return {each["id"]: Message(**each) for each in self.call("messages", room=room, retry=retry)}

    def withheld_codes(self) -> list[str]:
        """The codes with which others told it that they sent it no room key."""
        return [each["code"] for each in self.call("withheld")]

    def verification(self, phase: str, **wanted: Any) -> dict[str, Any]:
        """A verification, once one is in a phase and is as wanted."""
        expected = {"event": "verification", "phase": phase} | wanted

        def found(told: list[dict[str, Any]]) -> dict[str, Any] | None:
            return next((each for each in told if expected.items() <= each.items()), None)

        answer: dict[str, Any] = self.until(found)
        return answer

    def sees_user(self, user: User, **wanted: Any) -> None:
        """Wait until it is told what it now thinks of a user: `verified`, `was_verified`, `needs_approval`."""
        expected = {"event": "user", "user": user.user_id} | wanted
        self.until(lambda told: any(expected.items() <= each.items() for each in told))

    def emoji(self, verification: str) -> list[str]:
        """The emoji that it shows in a verification, once it does."""

        def found(told: list[dict[str, Any]]) -> list[str] | None:
            sas = {"event": "sas", "id": verification}
            return next((each["emoji"] for each in told if sas.items() <= each.items()), None)

        answer: list[str] = self.until(found)
        return answer


class _NodeProcess:
    """A process of the peer's program, which ends with its standard input."""

    def __init__(self, log: Path) -> None:
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                peer_command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8"
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stdin(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def stdout(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout

    def kill(self) -> None:
        self._process.kill()

    def poll(self) -> int | None:
        return self._process.poll()

    def wait(self, timeout: float) -> int:
        return self._process.wait(timeout)
