"""A program in a process of its own that takes commands as lines of JSON, from the side of the test that drives it."""

from __future__ import annotations

import itertools
import json
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any, Final, Protocol, Self

#: Generous, because machines that run tests are busy.
_SECONDS: Final = 120


class ClientDied(RuntimeError):
    """The process ended before it answered."""


class ClientFailed(RuntimeError):
    """A command raised in the client; `kind` is the exception's class."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class Process(Protocol):
    """What is asked of a process."""

    @property
    def stdin(self) -> IO[str]: ...

    @property
    def stdout(self) -> IO[str]: ...

    @property
    def pid(self) -> int: ...

    def kill(self) -> None: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float) -> int: ...


class Driven:
    """One process. Its methods wait, except `begin`."""

    _numbers = itertools.count(1)

    def __init__(self, process: Process, log: Path) -> None:
        #: What it told by itself, in order.
        self.told: list[dict[str, Any]] = []
        self._pending: dict[int, Future[Any]] = {}
        self._changed = threading.Condition()
        self._ended = False
        self.log: Final = log
        self._process: Final = process
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def call(self, do: str, **parameters: Any) -> Any:
        """What a command answers. Raises ClientFailed, ClientDied if the process ends first, TimeoutError."""
        try:
            return self.begin(do, **parameters).result(timeout=_SECONDS)
        except TimeoutError as error:
            raise TimeoutError(f"{do} was not answered in {_SECONDS} s; log: {self.tail()}") from error

    def begin(self, do: str, **parameters: Any) -> Future[Any]:
        """Give a command and go on."""
        answer: Future[Any] = Future()
        number = next(self._numbers)
        with self._changed:
            self._pending[number] = answer
        self._write({"id": number, "do": do, **parameters})
        if self._ended:
            self._fail_pending()
        return answer

    def dies(self, answer: Future[Any]) -> None:
        """Wait until the process dies by SIGKILL in the command."""
        try:
            result = answer.result(timeout=_SECONDS)
        except ClientDied:
            assert self.wait() == -signal.SIGKILL, self.tail()
        else:
            raise AssertionError(f"the client lived on and answered {result!r}; points passed: {self.call('passed')}")

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL, wherever it is."""
        self._process.kill()
        self.wait()

    def wait(self) -> int:
        """The process's end; minus the signal that ended it."""
        code = self._process.wait(timeout=_SECONDS)
        self._reader.join(timeout=_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                pipe.close()
            except BrokenPipeError:
                # A command that it did not live to read.
                continue
        return code

    def until(self, wanted: Callable[[list[dict[str, Any]]], Any]) -> Any:
        """Wait until what it told so far makes `wanted` true, and answer that. Raises ClientDied, TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._ended or wanted(self.told), timeout=_SECONDS):
                raise TimeoutError(f"waited in vain; told so far: {self.told[-5:]}; log: {self.tail()}")
            if found := wanted(self.told):
                return found
        raise ClientDied(f"ended with {self._process.poll()}: {self.tail()}")

    def tail(self) -> str:
        """The end of what it wrote to standard error."""
        return self.log.read_text(errors="replace")[-3000:]

    def _write(self, message: dict[str, Any]) -> None:
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            # It died; those who wait for an answer are told.
            return

    def _read(self) -> None:
        try:
            for line in self._process.stdout:
                self._take(json.loads(line))
        finally:
            # Even after a line that is none of its own, nobody waits for ever.
            with self._changed:
                self._ended = True
                self._changed.notify_all()
            self._fail_pending()

    def _take(self, message: dict[str, Any]) -> None:
        with self._changed:
            if "event" in message:
                self.told.append(message)
                self._changed.notify_all()
                return
            answer = self._pending.pop(message["id"])
        if "error" in message:
            answer.set_exception(ClientFailed(message["error"], message["text"]))
        else:
            answer.set_result(message["result"])

    def _fail_pending(self) -> None:
        with self._changed:
            pending, self._pending = self._pending, {}
        for answer in pending.values():
            answer.set_exception(ClientDied(self.tail()))
