"""Uploads of keys, without a client: nio's own upload and the homeserver are functions here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

from aiohttp import ClientResponse
from nio import ErrorResponse, KeysUploadError, KeysUploadResponse

from cryptostore.nio.client.uploading import KeyUploads

KEYS = '{"one_time_keys": {}}'


class Homeserver:
    """Answers uploads with the statuses that it was given, or not at all where one is None."""

    def __init__(self, *statuses: int | None) -> None:
        self.statuses = list(statuses)
        self.requests = 0
        self.tries = 0
        self.identity: ErrorResponse | None = None
        device: Any = SimpleNamespace(access_token="token")
        session: Any = SimpleNamespace(machine=SimpleNamespace(fallback_keys=self))
        self.uploads = KeyUploads(device, session, self.check_identity, self.upload)

    def try_now(self) -> None:
        self.tries += 1

    async def check_identity(self) -> ErrorResponse | None:
        return self.identity

    async def upload(self) -> KeysUploadResponse | KeysUploadError:
        """As nio's: what had no answer, or came too often, is sent again."""
        for _ in range(5):
            try:
                response = await self.uploads.send_once(KEYS, self.send)
            except ConnectionError:
                continue
            if response.status == 200:
                return KeysUploadResponse(1, 1)
            if response.status != 429:
                return KeysUploadError("refused")
        return KeysUploadError("too often")

    async def send(self) -> ClientResponse:
        self.requests += 1
        status = self.statuses.pop(0)
        if status is None:
            raise ConnectionError
        return cast("ClientResponse", SimpleNamespace(status=status))


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def awaited() -> None:
        await scenario()

    asyncio.run(awaited())


def test_keys_whose_request_had_no_answer_are_not_sent_again() -> None:
    async def scenario() -> None:
        server = Homeserver(None, 200)
        answer = await server.uploads.upload()
        assert isinstance(answer, KeysUploadError)
        assert "other keys" in answer.message
        assert server.requests == 1
        assert isinstance(await server.uploads.upload(), KeysUploadResponse)

    run(scenario)


def test_keys_that_the_homeserver_had_no_time_for_are_sent_again() -> None:
    async def scenario() -> None:
        server = Homeserver(429, 200)
        assert isinstance(await server.uploads.upload(), KeysUploadResponse)
        assert server.requests == 2

    run(scenario)


def test_a_failure_makes_a_pause_until_there_is_a_new_token() -> None:
    async def scenario() -> None:
        server = Homeserver(400, 200)
        assert server.uploads.is_due
        await server.uploads.upload()
        assert not server.uploads.is_due
        server.uploads.start_over()
        assert server.uploads.is_due
        assert server.tries == 1

    run(scenario)


def test_nothing_is_uploaded_before_the_identity_is_known() -> None:
    async def scenario() -> None:
        server = Homeserver(200)
        server.identity = ErrorResponse("not now", "M_UNKNOWN")
        answer = await server.uploads.upload()
        assert isinstance(answer, KeysUploadError)
        assert (answer.message, answer.status_code) == ("not now", "M_UNKNOWN")
        assert server.requests == 0
        assert server.uploads.is_due

    run(scenario)


def test_one_upload_waits_for_another() -> None:
    async def scenario() -> None:
        under_way = most = 0

        class Slow(Homeserver):
            async def send(self) -> ClientResponse:
                nonlocal under_way, most
                under_way += 1
                most = max(most, under_way)
                await asyncio.sleep(0)
                under_way -= 1
                return await super().send()

        server = Slow(200, 200)
        await asyncio.gather(server.uploads.upload(), server.uploads.upload())
        assert (server.requests, most) == (2, 1)

    run(scenario)
