"""However many clients wait for one database, those of another go on."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from socket import create_server

import pytest

from client_pairs import BOB, CONFIG
from cryptostore import Account, BackendUnavailable
from cryptostore.nio import ProductionMatrixClient
from cryptostore.nio.client.threads import in_thread, threads_of
from cryptostore_contract.samples import KEY

#: More than asyncio's own threads on a small machine.
WAITING = 20


@pytest.fixture
def silent_url() -> Iterator[str]:
    """A server that accepts connections and never says a word."""
    with closing(create_server(("127.0.0.1", 0), backlog=WAITING)) as listening:
        yield f"postgresql://bot@127.0.0.1:{listening.getsockname()[1]}/keys?deadline=3"


def client_of(account: Account, url: str) -> ProductionMatrixClient:
    return ProductionMatrixClient(
        "http://127.0.0.1:1", account.user_id, account.device_id, store=url, pickle_key=KEY, config=CONFIG
    )


def test_clients_of_a_silent_server_hold_up_no_client_of_another(memory_url: str, silent_url: str) -> None:
    async def scenario() -> None:
        unlucky = [client_of(Account(f"@bot{number}:small", "D"), silent_url) for number in range(WAITING)]
        openings = [asyncio.create_task(client.open()) for client in unlucky]
        await asyncio.sleep(0)
        healthy = client_of(BOB, memory_url)
        await healthy.open()
        await healthy.flush()
        await healthy.close()
        assert not any(opening.done() for opening in openings)
        for outcome in await asyncio.gather(*openings, return_exceptions=True):
            assert isinstance(outcome, BackendUnavailable)
        for client in unlucky:
            await client.close()

    asyncio.run(scenario())


def test_clients_of_one_database_share_threads_that_end_with_them() -> None:
    one, other = threads_of("memory://one"), threads_of("memory://other")
    assert threads_of("memory://one") is one
    assert other is not one

    async def used(threads: ThreadPoolExecutor) -> threading.Thread:
        return await in_thread(threads, threading.current_thread)

    thread = asyncio.run(used(one))
    assert thread.is_alive()
    del one
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def test_a_thread_sees_the_context_of_its_caller() -> None:
    seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen")

    async def scenario() -> None:
        seen.set("the caller's")
        assert await in_thread(threads_of("memory://"), seen.get) == "the caller's"

    asyncio.run(scenario())
