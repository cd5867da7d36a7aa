"""A homeserver that answers with errors for a while: nothing that only a person could mend."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest
from aiohttp import web
from nio import KeysUploadError, LocalProtocolError, SyncError, SyncResponse

from client_pairs import CONFIG
from cryptostore import AccessTokenRejected, ConfigurationError, FencedOut, HomeserverUnavailable
from cryptostore.nio import ProductionMatrixClient
from cryptostore.nio.client import sync_loop
from small_homeserver import PAGES, Request, SmallHomeserver, page, small_homeserver

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
    "502 of a proxy": partial(page, 502),
    **{f"{status} of a proxy": partial(page, status) for status in PAGES},
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


@pytest.mark.parametrize("is_soft", [False, True])
def test_a_token_revoked_while_running_ends_sync_forever(memory_url: str, *, is_soft: bool) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server, a_client(server, memory_url) as client:
            await client.login_or_restore("password")
            device_id = client.device_id
            told: list[SyncError] = []
            client.add_response_callback(told.append, SyncError)  # type: ignore[arg-type]  # nio's annotation lacks errors
            forever = asyncio.create_task(client.sync_forever(timeout=50))
            await client.synced.wait()
            revoked = {"errcode": "M_UNKNOWN_TOKEN", "error": "bye", "soft_logout": is_soft}
            server.faults.append(fault("/sync", lambda: web.json_response(revoked, status=401)))
            server.tokens.clear()
            with pytest.raises(AccessTokenRejected, match="M_UNKNOWN_TOKEN bye"):
                await asyncio.wait_for(forever, 10)
            assert [answer.status_code for answer in told] == ["M_UNKNOWN_TOKEN"]
            server.faults.clear()
            await client.login_or_restore("password")
            assert client.device_id == device_id
            assert isinstance(await client.sync(), SyncResponse)

    asyncio.run(scenario())


def test_a_soft_logout_that_another_request_met_ends_sync_forever(memory_url: str) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server, a_client(server, memory_url) as client:
            await client.login_or_restore("password")
            forever = asyncio.create_task(client.sync_forever(timeout=50, loop_sleep_time=500))
            await client.synced.wait()
            revoked = {"errcode": "M_UNKNOWN_TOKEN", "error": "bye", "soft_logout": True}
            server.faults.append(lambda _: web.json_response(revoked, status=401))
            await client.whoami()
            with pytest.raises(AccessTokenRejected):
                await asyncio.wait_for(forever, 10)
            server.faults.clear()
            with pytest.raises(LocalProtocolError, match="Not logged in"):
                await client.sync_forever(timeout=50)

    asyncio.run(scenario())


def test_a_process_that_lost_its_token_with_its_account_names_the_newer_one(memory_url: str) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server, a_client(server, memory_url) as older:
            await older.login_or_restore("password")
            await older.sync()
            async with a_client(server, memory_url) as newer:
                await newer.login_or_restore()
                # As after a login, which makes the tokens before it void.
                server.tokens.clear()
                with pytest.raises(FencedOut):
                    await older.sync_forever(timeout=50)

    asyncio.run(scenario())


def test_syncs_that_fail_are_logged(memory_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server, a_client(server, memory_url) as client:
            await client.login_or_restore("password")
            server.faults.append(fault("/sync", HICCUPS["502 of a proxy"]))
            with suppress(TimeoutError):
                await asyncio.wait_for(client.sync_forever(timeout=50), 0.5)

    asyncio.run(scenario())
    said = [record.getMessage() for record in caplog.records if "failed in a row" in record.getMessage()]
    assert "1 syncs failed in a row, the last one with SyncError: M_NOT_JSON HTTP status 502" in said[0]
    assert len(said) > 1


def test_a_homeserver_may_refuse_for_weeks(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server, a_client(server, memory_url) as client:
            # No test waits for weeks.
            monkeypatch.setattr(sync_loop, "_LONGEST_PAUSE", 0.01)
            await client.login_or_restore("password")
            await client.sync()
            client._syncs.failures = client._key_uploads._failures = 5_000
            server.faults.append(lambda _: refusal("M_UNKNOWN", 400))
            assert isinstance(await client.keys_upload(), KeysUploadError)
            forever = asyncio.create_task(client.sync_forever(timeout=50))
            while client._syncs.failures < 5_003 and not forever.done():
                await asyncio.wait([forever], timeout=0.01)
            server.faults.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(forever, 0.5)
            assert client._syncs.failures == 0

    asyncio.run(scenario())
