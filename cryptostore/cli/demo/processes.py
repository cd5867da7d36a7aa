"""Running a party as a process, and killing it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from cryptostore.cli.exits import ExitCode
from cryptostore.errors import CryptoStoreError

from .protocol import MAX_LINE, PartyConfig, encode

_PARTY: Final = "cryptostore.cli.demo.party"

#: Answers one request of a party: its run, the method, the parameters.
Answer = Callable[["PartyRun", str, Mapping[str, Any]], Awaitable[Any]]


class PartyFailed(CryptoStoreError):
    """A party ended by itself, with an error of its own."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class PartyRun:
    """One life of a party, from its start to its end or its SIGKILL."""

    def __init__(self, config: PartyConfig, answer: Answer) -> None:
        self.config: Final = config
        #: Set when the kill is decided, though not done yet: from then on the party gets no answers.
        self.doomed = False
        self.killed = asyncio.Event()
        self._answer = answer
        self._process: asyncio.subprocess.Process | None = None

    async def live(self) -> None:
        """Run the party until it ends. Raises PartyFailed if it ends neither well nor by `kill`."""
        with tempfile.TemporaryFile() as errors:
            # A session of its own, so that Ctrl-C reaches this process alone, which then ends the party.
            # -P, because whatever lies in the user's current folder is no package of ours.
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", _PARTY),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                limit=MAX_LINE,
            )
            self._process = process
            try:
                await self._serve(process)
                code = await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            if code != 0 and not self.killed.is_set():
                errors.seek(0)
                last_words = errors.read().decode(errors="replace").strip().splitlines()[-1:]
                raise PartyFailed(f"{self.config.user_id} ended with code {code}: {' '.join(last_words)}", code)

    def kill(self) -> None:
        """SIGKILL, now."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        self.killed.set()

    async def _serve(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None  # noqa: S101  # both are pipes, see above
        assert process.stdout is not None  # noqa: S101
        await _send(process.stdin, self.config._asdict())
        # To the end of the pipe: what a killed party had sent is on the network and arrives.
        while line := await process.stdout.readline():
            if not line.endswith(b"\n"):
                return
            request = json.loads(line)
            if request["method"] == "failed":
                code = await process.wait()
                raise PartyFailed(f"{self.config.user_id} stopped: {request['params']['error']}", code)
            await _send(process.stdin, await self._answer(self, request["method"], request["params"]))


async def _send(pipe: asyncio.StreamWriter, document: Any) -> None:
    pipe.write(encode(document).encode())
    # The party may be dead already; the end of its output says so.
    with contextlib.suppress(ConnectionError):
        await pipe.drain()


def exit_code_of_party(error: PartyFailed) -> ExitCode:
    """The exit code to pass on: the party's own, if it is one of ours."""
    return ExitCode(error.exit_code) if error.exit_code in set(ExitCode) else ExitCode.CHECK_FAILED
