"""What opening a client asks the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest

from client_pairs import ALICE, CONFIG
from cryptostore import Backend, Database, open_backend
from cryptostore.nio import ProductionMatrixClient, storage
from cryptostore_contract.samples import KEY
from small_homeserver import small_homeserver

NAMES = (ALICE.user_id, ALICE.device_id)
_OPENING = ["find", "get", "ranges", "take_over", "ranges"]
_CALLS = [name for name in Database.__abstractmethods__ if name != "close"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls of every database that is opened, in their order."""
    calls: list[str] = []

    def counting(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def counted(*args: Any, **given: Any) -> Any:
            calls.append(name)
            return call(*args, **given)

        return counted

    def opened(url: str) -> Backend:
        backend = open_backend(url)
        for name in _CALLS:
            monkeypatch.setattr(backend.database, name, counting(name, getattr(backend.database, name)))
        return backend

    monkeypatch.setattr(storage, "open_backend", opened)
    return calls


def test_opening_reads_everything_together(url: str, asked: list[str]) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            for first in (True, False):
                asked.clear()
                client = ProductionMatrixClient(server.url, *NAMES, store=url, pickle_key=KEY, config=CONFIG)
                await client.open()
                opening = list(asked)
                await client.login_or_restore("password")
                # A new identity is written after the homeserver was asked, together with its login.
                assert asked[len(opening) :] == (["commit"] if first else [])
                assert client.statistics.loop_reads == 0
                await client.close()
            # The account, its key ring, what speaks against taking it over; then all that a client begins with.
            assert opening == _OPENING

    asyncio.run(scenario())


def test_restoring_a_login_asks_no_more_than_opening(url: str, asked: list[str]) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            for _ in range(2):
                asked.clear()
                client = ProductionMatrixClient(server.url, *NAMES, store=url, pickle_key=KEY, config=CONFIG)
                await client.login_or_restore("password")
                begun = list(asked)
                await client.close()
            assert begun == _OPENING

    asyncio.run(scenario())
