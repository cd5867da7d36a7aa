"""A homeserver that answers with errors for a while: nothing that only a person could mend."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from aiohttp import web

from client_pairs import CONFIG
from cryptostore import ConfigurationError, HomeserverUnavailable
from cryptostore.nio import ProductionMatrixClient
from small_homeserver import Request, SmallHomeserver, small_homeserver

USER = "@bot:small"

Answer = Callable[[], web.StreamResponse]


def a_client(server: SmallHomeserver, url: str) -> ProductionMatrixClient:
    return ProductionMatrixClient(server.url, USER, store=url, pickle_key="k", config=CONFIG)


def refusal(code: str, status: int) -> web.StreamResponse:
    return web.json_response({"errcode": code, "error": "no"}, status=status)


def fault(path: str, answer: Answer) -> Callable[[Request], web.StreamResponse | None]:
    return lambda request: answer() if request.is_for(path) else None


HICCUPS: dict[str, Answer] = {
    "500": lambda: refusal("M_UNKNOWN", 500),
    "502 of a proxy": lambda: web.Response(status=502, text="<html>Bad Gateway</html>", content_type="text/html"),
    "403 of a proxy": lambda: web.Response(status=403, text="<html>Forbidden</html>", content_type="text/html"),
    "a page in its place": lambda: web.Response(text="<html>Back soon</html>", content_type="text/html"),
    "another JSON": lambda: web.json_response({"message": "upstream"}, status=403),
}


@pytest.mark.parametrize("hiccup", HICCUPS)
@pytest.mark.parametrize("path", ["/whoami", "/keys/query", "/login"])
def test_a_hiccup_at_the_start_is_no_configuration_error(memory_url: str, path: str, hiccup: str) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            if path != "/login":
                async with a_client(server, memory_url) as client:
                    await client.login_or_restore("password")
            server.faults.append(fault(path, HICCUPS[hiccup]))
            async with a_client(server, memory_url) as client:
                with pytest.raises(HomeserverUnavailable):
                    await client.login_or_restore("password")
                server.faults.clear()
                await client.login_or_restore("password")
            assert len(server.tokens) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("code", "status"),
    [("M_FORBIDDEN", 403), ("M_USER_DEACTIVATED", 403), ("M_UNKNOWN", 400), ("M_INVALID_USERNAME", 400)],
)
@pytest.mark.parametrize("path", ["/whoami", "/login"])
def test_a_refusal_is_for_a_person(memory_url: str, path: str, code: str, status: int) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            if path != "/login":
                async with a_client(server, memory_url) as client:
                    await client.login_or_restore("password")
            server.faults.append(fault(path, lambda: refusal(code, status)))
            async with a_client(server, memory_url) as client:
                with pytest.raises(ConfigurationError, match=code):
                    await client.login_or_restore("password")

    asyncio.run(scenario())
