"""The exit codes of examples/bot.py, which decide whether a supervisor starts it again."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from aiohttp import web

from cryptostore import Changes, OlmAccount, open_backend
from cryptostore.nio.client.takeovers import TakeOvers
from cryptostore_contract.samples import KEY
from small_homeserver import Request, SmallHomeserver, small_homeserver

_BOT = Path(__file__).parents[2] / "examples" / "bot.py"
_SECONDS = 60
_OURS = ("MATRIX_", "CRYPTOSTORE_", "POSTGRES_", "USE_POSTGRES")


@asynccontextmanager
async def bot(server: SmallHomeserver, folder: Path, password: str = "password") -> AsyncIterator[Process]:
    """The bot as a process of its own, whose log goes to a pipe."""
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith(_OURS)},
        "MATRIX_HOMESERVER": server.url,
        "MATRIX_USER_ID": "@bot:small",
        "MATRIX_PASSWORD": password,
        "CRYPTOSTORE_URL": f"sqlite:///{folder}/keys.db",
        "CRYPTOSTORE_PICKLE_KEY": KEY,
    }
    process = await asyncio.create_subprocess_exec(sys.executable, str(_BOT), env=variables, cwd=folder, stderr=PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def exit_code(process: Process) -> int:
    """How the bot ended."""
    return await asyncio.wait_for(process.wait(), _SECONDS)


async def says(process: Process, text: str) -> None:
    """Read the bot's log until it holds the text."""
    assert process.stderr is not None
    seen = b""
    while text.encode() not in seen:
        line = await asyncio.wait_for(process.stderr.readline(), _SECONDS)
        assert line, seen.decode()
        seen += line


async def ready(process: Process) -> None:
    """Wait until the bot has logged in."""
    await says(process, "ready as")


def bad_gateway(path: str, asked: Request) -> web.Response | None:
    """What a proxy answers while the homeserver behind it restarts."""
    return web.Response(status=502) if asked.is_for(path) else None


def test_a_bot_that_meets_a_hiccup_at_its_start_is_started_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            for path in ("/login", "/whoami"):
                server.faults.append(partial(bad_gateway, path))
                async with bot(server, tmp_path) as process:
                    assert await exit_code(process) == 1
                server.faults.clear()
                async with bot(server, tmp_path) as process:
                    await ready(process)
                    process.terminate()
                    assert await exit_code(process) == 0

    asyncio.run(scenario())


def test_a_bot_that_is_refused_is_not_started_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server, bot(server, tmp_path, "wrong") as process:
            assert await exit_code(process) == 2

    asyncio.run(scenario())


def test_a_bot_whose_token_is_revoked_ends_and_comes_back_as_the_same_device(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            async with bot(server, tmp_path) as process:
                await ready(process)
                before = list(server.tokens.values())
                server.tokens.clear()
                assert await exit_code(process) == 1
            async with bot(server, tmp_path) as process:
                await ready(process)
                assert list(server.tokens.values()) == before
            server.tokens.clear()
            async with bot(server, tmp_path, "changed meanwhile") as process:
                assert await exit_code(process) == 2

    asyncio.run(scenario())


def test_a_bot_whose_account_is_damaged_is_not_started_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            async with bot(server, tmp_path) as process:
                await ready(process)
            damage_the_account(f"sqlite:///{tmp_path}/keys.db")
            async with bot(server, tmp_path) as process:
                assert await exit_code(process) == 2

    asyncio.run(scenario())


def damage_the_account(url: str) -> None:
    """Spoil the pickle of the one account in the database."""
    with open_backend(url) as backend:
        (account,) = backend.accounts()
        with backend.open_store(account, pickle_key=KEY) as store:
            stored = store.get(OlmAccount, [()])[()]
            store.apply(Changes([replace(stored, pickle=b"damaged")]))


def test_a_bot_that_waits_for_its_turn_ends_at_once_when_it_is_told_to(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/keys.db"

    async def scenario() -> None:
        async with small_homeserver() as server:
            async with bot(server, tmp_path) as process:
                await ready(process)
            with open_backend(url, owner="elsewhere:1") as backend:
                (account,) = backend.accounts()
                with backend.open_store(account, pickle_key=KEY) as store:
                    store.apply(Changes([TakeOvers([time.time()] * 4, 60.0).record()]))
                    async with bot(server, tmp_path) as process:
                        await says(process, "waiting 60 s")
                        told = time.monotonic()
                        process.terminate()
                        assert await exit_code(process) == 0
                        assert time.monotonic() - told < 20
                    # The account is still the other's.
                    store.apply(Changes([TakeOvers().record()]))

    asyncio.run(scenario())
