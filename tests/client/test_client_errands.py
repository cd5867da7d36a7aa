"""What `sync_forever` asks between its syncs, another task may ask at the same moment, such as one that sends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from aiohttp import web
from nio import LocalProtocolError, ToDeviceError, ToDeviceMessage

from client_pairs import ALICE, BOB, CONFIG, Person
from cryptostore.nio import ProductionMatrixClient
from cryptostore_contract.samples import KEY
from small_homeserver import Request, small_homeserver


def second(ask: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    """The same request, made when another task has made it already, and had its answer."""

    async def ask_too_late() -> Any:
        await ask()
        with pytest.raises(LocalProtocolError) as refused:
            await ask()
        raise refused.value

    return ask_too_late


@pytest.mark.parametrize("errand", ["keys_upload", "keys_query"])
def test_what_another_task_has_asked_already_ends_no_loop(memory_url: str, errand: str) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            alice = await Person(server, ALICE, memory_url).start()
            asked: list[str] = []
            late = second(getattr(alice.client, errand))

            async def noted() -> Any:
                asked.append(errand)
                return await late()

            setattr(alice.client, errand, noted)
            with suppress(TimeoutError):
                await asyncio.wait_for(alice.client.sync_forever(timeout=50), 1)
            assert asked == [errand]
            await alice.client.close()

    asyncio.run(scenario())


def test_an_errand_that_is_refused_for_another_reason_ends_the_loop(memory_url: str) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            client = ProductionMatrixClient(server.url, ALICE.user_id, store=memory_url, pickle_key=KEY, config=CONFIG)
            async with client:
                await client.login_or_restore("password")

                async def refuse() -> Any:
                    raise LocalProtocolError("for another reason")

                client.keys_upload = refuse  # type: ignore[method-assign]
                with pytest.raises(LocalProtocolError, match="for another reason"):
                    await asyncio.wait_for(client.sync_forever(timeout=50), 10)

    asyncio.run(scenario())


def test_a_message_to_a_device_is_sent_again_where_there_are_too_many_requests(memory_url: str) -> None:
    busy = {"errcode": "M_LIMIT_EXCEEDED", "error": "later", "retry_after_ms": 1}
    answers = [
        web.json_response(busy, status=429),
        web.Response(status=429, text="<html>Too many requests</html>", content_type="text/html"),
    ]

    def refuse(request: Request) -> web.StreamResponse | None:
        return answers.pop(0) if answers and request.is_for("sendToDevice/m.test") else None

    async def scenario() -> None:
        async with small_homeserver() as server:
            alice = await Person(server, ALICE, memory_url).start()
            message = ToDeviceMessage("m.test", BOB.user_id, BOB.device_id, {})
            told: list[ToDeviceError] = []
            alice.client.add_response_callback(told.append, ToDeviceError)  # type: ignore[arg-type]  # nio's annotation lacks errors
            server.faults.append(refuse)
            alice.client.machine.outgoing_to_device_messages.append(message)
            syncing = asyncio.create_task(alice.client.sync_forever(timeout=50))
            while not (arrived := server.to_device[BOB.user_id, BOB.device_id]) and not syncing.done():
                await asyncio.wait([syncing], timeout=0.02)
            assert not syncing.done(), syncing.exception()
            await alice.client.synced.wait()
            assert [event["type"] for _, event in arrived] == ["m.test"]
            assert [(each.status_code, each.retry_after_ms) for each in told] == [
                ("M_LIMIT_EXCEEDED", 1),
                ("M_NOT_JSON", None),
            ]
            assert [each.to_device_message for each in told] == [message, message]
            assert not alice.client.outgoing_to_device_messages
            syncing.cancel()
            await alice.client.close()

    asyncio.run(scenario())
