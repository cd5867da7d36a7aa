"""A client that is closed, or used, while it still waits for its account: nothing is half done."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from nio import LocalProtocolError

from client_opening import Gate, give_up, held, is_used, waiting
from client_pairs import BOB, people
from cryptostore import StoreClosed
from cryptostore.nio import ProductionMatrixClient
from cryptostore.store.memory import MemoryHandle
from cryptostore_contract.samples import KEY
from small_homeserver import SmallHomeserver

_CLOSED = "closed while it was being opened"


async def assert_closed(*openings: asyncio.Task[Any]) -> None:
    for opening in openings:
        with pytest.raises(StoreClosed, match=_CLOSED):
            await asyncio.wait_for(opening, 10)


def test_closed_while_it_waits_for_its_turn(url: str) -> None:
    async def scenario() -> None:
        async with held(url, 0.5) as (server, _alice, holder):
            late = waiting(server, url)
            openings = [asyncio.create_task(late.client.open()) for _ in range(2)]
            await asyncio.sleep(0.5)
            await late.client.close()
            assert late.client.store is None
            assert not is_used(late.url)
            await assert_closed(*openings)
            await asyncio.sleep(1)
            await holder.client.sync()
            await late.start()
            await late.client.sync()
            await late.client.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("step", ["find", "take_over"])
def test_closed_while_a_thread_opens(memory_url: str, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    gate = Gate(step)

    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            late = waiting(server, memory_url)
            if step == "take_over":
                await bob.client.close()
            monkeypatch.setattr(MemoryHandle, gate.step, lambda *given: gate.pass_through(*given))
            opening = asyncio.create_task(late.client.open())
            assert await asyncio.to_thread(gate.reached.wait, 10)
            closing = asyncio.create_task(late.client.close())
            await assert_closed(opening)
            assert not closing.done()
            gate.opened.set()
            await closing
            assert late.client.store is None
            assert not is_used(late.url)
            if step == "find":
                await bob.client.sync()

    asyncio.run(scenario())


def test_closed_while_it_looks_for_its_account(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, _bob):
            client = ProductionMatrixClient(
                server.url, "@carol:small", store=f"{memory_url}?owner=carol", pickle_key=KEY
            )
            login = asyncio.create_task(client.login_or_restore("password"))
            await asyncio.sleep(0)
            await client.close()
            await assert_closed(login)
            assert client.store is None
            assert not is_used(f"{memory_url}?owner=carol")

    asyncio.run(scenario())


def test_closed_while_the_database_is_away() -> None:
    async def scenario() -> None:
        url = "postgresql://nobody:secret@127.0.0.1:1/keys?deadline=1"
        late = waiting(SmallHomeserver(url="http://127.0.0.1:1"), url)
        opening = asyncio.create_task(late.client.open())
        await asyncio.sleep(0.2)
        await late.client.close()
        await assert_closed(opening)
        assert not is_used(late.url)

    asyncio.run(scenario())


def test_whoever_is_cancelled_while_the_client_is_closed_is_cancelled(memory_url: str) -> None:
    async def scenario() -> None:
        async with held(memory_url, 30.0) as (server, _alice, _holder):
            late = waiting(server, memory_url)
            opening = asyncio.create_task(late.client.open())
            await asyncio.sleep(0.2)
            closing = asyncio.create_task(late.client.close())
            await give_up(opening)
            await closing

    asyncio.run(scenario())


def test_whoever_opened_it_goes_on(memory_url: str) -> None:
    async def scenario() -> None:
        async with held(memory_url, 30.0) as (server, _alice, _holder):
            late = waiting(server, memory_url)

            async def open_and_go_on() -> int:
                with pytest.raises(StoreClosed, match=_CLOSED):
                    await late.client.open()
                task = asyncio.current_task()
                assert task is not None
                return task.cancelling()

            opening = asyncio.create_task(open_and_go_on())
            await asyncio.sleep(0.2)
            await asyncio.gather(late.client.close(), late.client.close())
            assert await opening == 0

    asyncio.run(scenario())


def test_a_login_is_not_restored_while_the_account_is_being_opened(memory_url: str) -> None:
    async def scenario() -> None:
        async with held(memory_url, 0.5) as (server, _alice, holder):
            late = waiting(server, memory_url)
            opening = asyncio.create_task(late.client.open())
            await asyncio.sleep(0.2)
            with pytest.raises(LocalProtocolError, match="await"):
                late.client.restore_login(BOB.user_id, BOB.device_id, "token")
            assert late.client.access_token == ""
            await holder.client.sync()
            await opening
            await late.start()
            await late.client.sync()
            await late.client.close()

    asyncio.run(scenario())


def test_an_opening_waits_for_one_that_was_given_up(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate("take_over", waits_before=True)

    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            await bob.client.close()
            late = waiting(server, memory_url)
            monkeypatch.setattr(MemoryHandle, gate.step, lambda *given: gate.pass_through(*given))
            opening = asyncio.create_task(late.client.open())
            assert await asyncio.to_thread(gate.reached.wait, 10)
            await give_up(opening)
            again = asyncio.create_task(late.client.open())
            await asyncio.sleep(0.2)
            gate.opened.set()
            await again
            await late.start()
            # The account is not the other opening's.
            await late.client.sync()
            await late.client.close()
            assert not is_used(late.url)

    asyncio.run(scenario())
