"""Questions to the homeserver before an account is open: they change nothing of the client, and end in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from aiohttp import ClientError, InvalidURL
from nio import AsyncClient, AsyncClientConfig, ErrorResponse, Response

from cryptostore.errors import ConfigurationError, HomeserverUnavailable

_TOO_MANY_REQUESTS: Final = 429
#: Seconds before the next try where a homeserver that has too many requests does not say how long.
_PAUSE: Final = 5.0

R = TypeVar("R", bound=Response)


def request_headers(config: AsyncClientConfig, token: str) -> dict[str, str]:
    """The headers of a request, as those of nio's own."""
    authorization = {"Authorization": f"Bearer {token}"} if token else {}
    return {"Content-Type": "application/json", **authorization, **(config.custom_headers or {})}


class Homeserver:
    """The homeserver of a client, which may have neither an account nor a token yet."""

    def __init__(self, client: AsyncClient, deadline: float) -> None:
        self._client = client
        self._deadline = deadline

    @asynccontextmanager
    async def within_deadline(self) -> AsyncIterator[None]:
        """Raise HomeserverUnavailable where the block takes longer than the deadline."""
        try:
            async with asyncio.timeout(self._deadline):
                yield
        except TimeoutError as error:
            raise self._unavailable(f"gave no usable answer within {self._deadline:g} s") from error

    async def ask(
        self, kind: type[R], method: str, path: str, data: str | None = None, token: str = ""
    ) -> R | ErrorResponse:
        """One request, without the client's own retries. What has too many requests is asked again when it says.

        Raises HomeserverUnavailable where there is no answer, and ConfigurationError where the URL is none.
        """
        while True:
            answer = await self._ask_once(kind, method, path, data, token)
            if getattr(answer.transport_response, "status", None) != _TOO_MANY_REQUESTS:
                return answer
            milliseconds = getattr(answer, "retry_after_ms", None)
            await asyncio.sleep(milliseconds / 1000 if milliseconds else _PAUSE)

    async def _ask_once(self, kind: type[R], method: str, path: str, data: str | None, token: str) -> R | ErrorResponse:
        headers = request_headers(self._client.config, token)
        try:
            # Not the client's own `send`: that would open the account.
            transport = await AsyncClient.send(self._client, method, path.partition("?")[0], data, headers)
            answer: Any = await self._client.create_matrix_response(kind, transport)
        except InvalidURL as error:
            raise ConfigurationError(
                f"{self._client.homeserver!r} is no homeserver's URL; it begins with https:// or http://"
            ) from error
        except (ClientError, TimeoutError) as error:
            raise self._unavailable(f"cannot be reached: {str(error) or type(error).__name__}") from error
        return answer  # type: ignore[no-any-return]  # of `kind`, or its error

    def _unavailable(self, what: str) -> HomeserverUnavailable:
        return HomeserverUnavailable(f"the homeserver at {self._client.homeserver} {what}; try again later")
