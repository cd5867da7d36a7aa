"""Requests that nio does not know: JSON in, JSON out."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from aiohttp import ClientError
from nio import AsyncClient

from cryptostore.errors import CryptoStoreError, HomeserverUnavailable
from cryptostore.nio.client.answers import NOT_JSON, error_for
from cryptostore.nio.client.homeserver import request_headers
from cryptostore.nio.client.pauses import growing_pause

_PREFIX: Final = "/_matrix/client/v3"
#: The minor number in `v1.11`.
_VERSION: Final = re.compile(r"\bv1\.([0-9]{1,4})\b")
_OK: Final = 200
_NOT_FOUND: Final = 404
_TOO_MANY_REQUESTS: Final = 429
#: Seconds before the next try where a homeserver that has too many requests does not say how long.
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0


class Answer(NamedTuple):
    """What the homeserver answered: an HTTP status, and the JSON object of the body."""

    status: int
    content: dict[str, Any]

    @property
    def is_ok(self) -> bool:
        """Whether the request was done. A page in the answer's place says nothing of it."""
        return self.status == _OK and self.errcode != NOT_JSON

    @property
    def is_missing(self) -> bool:
        """Whether what was asked for is not there."""
        return self.status == _NOT_FOUND

    @property
    def errcode(self) -> str:
        """The specification's code of an error; empty if there is none."""
        code = self.content.get("errcode")
        return code if isinstance(code, str) else ""

    @property
    def problem(self) -> str:
        """The error, for people."""
        said = self.content.get("error")
        words = [f"HTTP status {self.status}", self.errcode, said if isinstance(said, str) else ""]
        return " ".join(word for word in words if word)

    def failure(self, what: str) -> CryptoStoreError:
        """The error to raise where nothing else can be made of this answer: a person has to look if it is a refusal."""
        return error_for(f"{what}: {self.problem}", self.status, self.errcode)


class Requests:
    """Asks the homeserver through a client: all that a request depends on is durable before it leaves."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def ask(
        self, method: str, *path: str, query: Mapping[str, str] | None = None, content: Mapping[str, Any] | None = None
    ) -> Answer:
        """One request to the client-server API, under `/_matrix/client/v3`; each part of `path` is one segment.

        Where the homeserver has too many requests this waits, and asks again. Raises HomeserverUnavailable if there is
        no answer, and what the client's `send` raises.
        """
        url = "/".join([_PREFIX, *(quote(part, safe="") for part in path)]) + (f"?{urlencode(query)}" if query else "")
        # nio's own way to send a body is text.
        data = None if content is None else json.dumps(content)
        return await self._ask_until_answered(method, url, data)

    async def _ask_until_answered(self, method: str, url: str, data: str | None) -> Answer:
        refusals = 0
        while True:
            answer = await self._ask_once(method, url, data)
            if answer.status != _TOO_MANY_REQUESTS:
                return answer
            refusals += 1
            await asyncio.sleep(_pause(answer, refusals))

    async def has_cross_signing(self) -> bool:
        """Whether the homeserver says that it knows of it. Raises as `supports`."""
        return await self.supports(1, "org.matrix.e2e_cross_signing")

    async def takes_first_identity_freely(self) -> bool:
        """Whether a first identity needs no password here, so that one is wanted only where there is one (MSC3967).

        Raises as `supports`.
        """
        return await self.supports(11, "org.matrix.msc3967")

    async def joined_rooms(self) -> set[str]:
        """The rooms that the account is in. Raises as `supports`."""
        answer = await self.ask("GET", "joined_rooms")
        if not answer.is_ok:
            raise answer.failure("the homeserver does not say in which rooms the account is")
        rooms = answer.content.get("joined_rooms")
        if not isinstance(rooms, list):
            raise HomeserverUnavailable("the homeserver does not say in which rooms the account is")
        return {room for room in rooms if isinstance(room, str)}

    async def supports(self, minor: int, feature: str) -> bool:
        """Whether the homeserver says that it knows version 1.`minor` of the specification or later, or this feature.

        Raises as `ask`, and HomeserverUnavailable for an answer that is an error.
        """
        answer = await self._ask_until_answered("GET", "/_matrix/client/versions", None)
        if not answer.is_ok:
            raise answer.failure("the homeserver does not say which versions of the specification it knows")
        versions, features = answer.content.get("versions"), answer.content.get("unstable_features")
        found = _VERSION.findall(" ".join(map(str, versions))) if isinstance(versions, list) else []
        is_later = any(int(number) >= minor for number in found)
        return is_later or (isinstance(features, dict) and features.get(feature) is True)

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Raise HomeserverUnavailable for the connection's error that ends a request in the block.

        nio asks again where its own requests have no answer, for ever unless `max_timeouts` ends that: what must end
        needs `Homeserver.within_deadline` around it.
        """
        try:
            yield
        except (ClientError, TimeoutError) as error:
            raise HomeserverUnavailable(
                f"the homeserver at {self._client.homeserver} cannot be reached: {str(error) or type(error).__name__}; "
                "try again later"
            ) from error

    async def _ask_once(self, method: str, url: str, data: str | None) -> Answer:
        headers = request_headers(self._client.config, self._client.access_token)
        with self.reaching():
            response = await self._client.send(method, url, data, headers)
            content: Any = await self._client.parse_body(response)
        return Answer(response.status, content if isinstance(content, dict) else {})


def _pause(answer: Answer, refusals: int) -> float:
    milliseconds = answer.content.get("retry_after_ms")
    if isinstance(milliseconds, int) and milliseconds > 0:
        return min(milliseconds / 1000, _LONGEST_PAUSE)
    return growing_pause(refusals, _FIRST_PAUSE, _LONGEST_PAUSE)
