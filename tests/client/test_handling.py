"""Who is told that callbacks run: the task that runs them, and those that it started."""

from __future__ import annotations

import asyncio

import pytest

from cryptostore.nio.client.handling import Handling


async def asked_in_a_task(handling: Handling) -> bool:
    async def ask() -> bool:
        return handling.is_in_callback

    return await asyncio.create_task(ask())


def test_a_callback_and_what_it_starts_are_inside() -> None:
    async def scenario() -> None:
        handling, other = Handling(), Handling()
        assert not handling.is_in_callback
        with handling.inside():
            assert handling.is_in_callback
            assert await asked_in_a_task(handling)
            # That of another client of the same process.
            assert not other.is_in_callback
        assert not handling.is_in_callback

    asyncio.run(scenario())


def test_a_task_that_began_before_is_outside() -> None:
    async def scenario() -> None:
        handling, go = Handling(), asyncio.Event()

        async def ask() -> bool:
            await go.wait()
            return handling.is_in_callback

        earlier = asyncio.create_task(ask())
        await asyncio.sleep(0)
        with handling.inside():
            go.set()
            assert not await earlier

    asyncio.run(scenario())


def test_a_task_that_goes_on_after_the_callbacks_is_outside() -> None:
    async def scenario() -> None:
        handling, go = Handling(), asyncio.Event()

        async def ask() -> bool:
            await go.wait()
            return handling.is_in_callback

        with handling.inside():
            started = asyncio.create_task(ask())
            await asyncio.sleep(0)
        go.set()
        assert not await started

    asyncio.run(scenario())


def test_callbacks_that_raise_are_over() -> None:
    handling = Handling()
    with pytest.raises(ValueError, match="callback"), handling.inside():
        raise ValueError("callback")
    assert not handling.is_in_callback
