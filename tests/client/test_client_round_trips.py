"""What opening a client asks the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest

from client_pairs import ALICE, CONFIG, people
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
            for _ in range(2):
                asked.clear()
                client = ProductionMatrixClient(server.url, *NAMES, store=url, pickle_key=KEY, config=CONFIG)
                await client.open()
                opening = list(asked)
                await client.login_or_restore("password")
                # A new account is written after the homeserver was asked, together with its login; later, who has it.
                assert asked[len(opening) :] == ["commit"]
                assert client.statistics.loop_reads == 0
                await client.close()
            # The account, its key ring, what speaks against taking it over; then all that a client begins with.
            assert opening == _OPENING

    asyncio.run(scenario())


def test_restoring_a_login_reads_no_more_than_opening(url: str, asked: list[str]) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            for _ in range(2):
                asked.clear()
                client = ProductionMatrixClient(server.url, *NAMES, store=url, pickle_key=KEY, config=CONFIG)
                await client.login_or_restore("password")
                begun = list(asked)
                await client.close()
            # Who has the account is written before the first request.
            assert begun == [*_OPENING, "commit"]

    asyncio.run(scenario())


def test_a_slice_of_a_gap_costs_one_batch_and_the_keys_that_are_not_in_memory(url: str, asked: list[str]) -> None:
    async def scenario() -> None:
        async with people(url) as (_server, alice, bob):
            await alice.say("the first")
            await bob.client.sync()
            for number in range(250):
                await alice.say(f"message {number}")
            await alice.client.flush()
            asked.clear()
            await bob.client.sync()
            assert len(bob.read) == 251
            assert bob.client.statistics.loop_reads == 0
            # The sync's keys before it asks for more, then its token and the record; three slices; the end of the page,
            # and of the gap. What was read: the sync's keys, and those replay pages that are in no memory.
            assert (asked.count("commit"), len(asked)) == (7, 12), asked

    asyncio.run(scenario())
