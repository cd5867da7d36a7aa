"""Opening an account that others may have: waiting for it holds nothing up, and may be given up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from client_opening import Gate, give_up, held, until_nobody_uses, waiting
from client_pairs import BOB, people
from cryptostore import FencedOut, open_backend
from cryptostore.nio.client.opening import Opening
from cryptostore.store.memory import MemoryHandle


def test_whoever_gives_up_while_it_waits_takes_nothing_over(memory_url: str) -> None:
    async def scenario() -> None:
        async with held(memory_url, 0.5) as (server, _alice, holder):
            opening = asyncio.create_task(waiting(server, memory_url).client.open())
            await asyncio.sleep(0.2)
            await give_up(opening)
            await asyncio.sleep(1.5)
            await holder.client.sync()

    asyncio.run(scenario())


def test_whoever_waits_holds_up_neither_others_nor_the_end(memory_url: str) -> None:
    async def scenario() -> None:
        async with held(memory_url, 30.0) as (server, alice, holder):
            patient = [waiting(server, memory_url, f"late:{number}") for number in range(40)]
            openings = [asyncio.create_task(person.client.open()) for person in patient]
            await asyncio.sleep(1)
            # Flushes run in the same threads.
            await asyncio.wait_for(alice.say("one"), 10)
            assert not any(opening.done() for opening in openings)
            for opening in openings:
                await give_up(opening)
            await holder.round()
            assert holder.read == ["one"]

    began = time.monotonic()
    asyncio.run(scenario())
    assert time.monotonic() - began < 30


def test_whoever_waits_takes_over_in_the_end(memory_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with held(memory_url, 0.5) as (server, _alice, holder):
            began = time.monotonic()
            late = await waiting(server, memory_url).start()
            assert time.monotonic() - began >= 1
            await late.client.sync()
            with pytest.raises(FencedOut, match="late:1"):
                await holder.client.check_ownership()
            await late.client.close()

    asyncio.run(scenario())
    assert "waiting 1 s before taking @bob:small BOBPHONE over from healthy:1, since" in caplog.text


def test_opening_on_the_event_loop_does_not_hold_it_up(memory_url: str) -> None:
    async def scenario() -> None:
        async with held(memory_url, 30.0) as (server, _alice, _holder):
            late = waiting(server, memory_url)
            began = time.monotonic()
            late.client.restore_login(BOB.user_id, BOB.device_id, f"token of {BOB.device_id}")
            late.client.load_store()
            assert time.monotonic() - began < 10
            await late.client.sync()
            await late.client.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("step", ["find", "take_over"])
def test_whoever_gives_up_while_a_thread_opens_leaves_nothing_open(
    memory_url: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    gate = Gate(step)

    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            late = waiting(server, memory_url)
            if step == "take_over":
                await bob.client.close()
            with monkeypatch.context() as patch:
                patch.setattr(MemoryHandle, gate.step, lambda *given: gate.pass_through(*given))
                opening = asyncio.create_task(late.client.open())
                assert await asyncio.to_thread(gate.reached.wait, 10)
                await give_up(opening)
                gate.opened.set()
                await until_nobody_uses(late.url)
            assert late.client.store is None
            if step == "find":
                await bob.client.sync()

    asyncio.run(scenario())


def test_what_a_thread_opened_just_before_its_caller_gave_up_is_closed() -> None:
    closed: list[str] = []
    is_awaited = threading.Event()

    def open_it(_check: Callable[[], None]) -> str:
        assert is_awaited.wait(10)
        return "what was opened"

    async def scenario() -> None:
        opening = Opening(open_it, closed.append)
        result = asyncio.create_task(opening.result(opening.start()))
        await asyncio.sleep(0)
        is_awaited.set()
        hold_the_loop_until_it_is_open(opening)
        assert closed == []
        await give_up(result)
        assert closed == ["what was opened"]

    asyncio.run(scenario())


def hold_the_loop_until_it_is_open(opening: Opening[str]) -> None:
    ends = time.monotonic() + 10
    while opening._opened is None:
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_two_calls_of_open_open_once(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            await bob.client.close()
            before = epoch(memory_url)
            late = waiting(server, memory_url)
            await asyncio.gather(late.client.open(), late.client.open())
            assert epoch(memory_url) == before + 1
            await late.start()
            await alice.say("one")
            await late.client.sync()
            assert late.read == ["one"]
            await late.client.close()
            await until_nobody_uses(late.url)

    asyncio.run(scenario())


def epoch(url: str) -> int:
    with open_backend(url) as backend:
        return backend.accounts()[BOB].epoch
