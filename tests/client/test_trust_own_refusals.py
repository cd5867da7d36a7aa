"""Homeservers that refuse, fail, forget or drop what concerns the account's identity."""

from __future__ import annotations

import asyncio
import os

import pytest
from aiohttp import web

from cryptostore import ConfigurationError, CryptoStoreError, HomeserverUnavailable
from cryptostore.nio import IdentityState
from cryptostore.nio.client.answers import NOT_JSON
from cryptostore.trust import recovery_key, secret_storage
from cryptostore.trust.cross_signing import Seeds
from own_identities import BACKUP, DEFAULT_KEY, USER, assert_whole, client_at, identities, kept_key, kept_seeds
from small_homeserver import Request, page

#: What an identity needs of a homeserver: a method, and a part of the path.
ASKED = [
    ("GET", "/account_data/m.secret_storage.default_key"),
    ("POST", "/keys/upload"),
    ("PUT", "/account_data/m.secret_storage.key."),
    ("PUT", "/account_data/m.cross_signing.user_signing"),
    ("POST", "/keys/device_signing/upload"),
    ("POST", "/keys/signatures/upload"),
]


def answering(method: str, part: str, status: int, errcode: str) -> web.StreamResponse:
    """An error that a homeserver answers, or a proxy in its place."""
    if errcode == NOT_JSON:
        return page(status)
    return web.json_response({"errcode": errcode, "error": f"no {method} {part}"}, status=status)


@pytest.mark.parametrize(("method", "part"), ASKED)
@pytest.mark.parametrize(
    ("status", "errcode", "kind"),
    [
        (500, "M_UNKNOWN", HomeserverUnavailable),
        (403, NOT_JSON, HomeserverUnavailable),
        (403, "M_FORBIDDEN", ConfigurationError),
    ],
)
def test_a_homeserver_that_refuses_or_fails_is_named_and_a_later_start_completes_it(
    memory_url: str, method: str, part: str, status: int, errcode: str, kind: type[CryptoStoreError]
) -> None:
    def fault(request: Request) -> web.StreamResponse | None:
        is_meant = request.method == method and request.is_for(part)
        return answering(method, part, status, errcode) if is_meant else None

    async def scenario() -> None:
        async with identities() as (server, known):
            server.faults.append(fault)
            async with client_at(server, memory_url) as client:
                try:
                    await client.login_or_restore("password")
                except kind as error:
                    problem = str(error)
                else:
                    # Refused for good, after which the device stays unsigned.
                    assert kind is ConfigurationError
                    assert client.identity_state is IdentityState.REFUSED
                    problem = client._trust.own.why
                assert errcode in problem
            server.faults.clear()
            async with client_at(server, memory_url) as client:
                await client.login_or_restore("password")
                assert_whole(known, client)
            assert len(known.used_keys(USER)) == 3

    asyncio.run(scenario())


@pytest.mark.parametrize("failures", [{USER: {"DEVICE": "text"}}, {USER: "text"}, "text", None])
def test_a_signature_that_was_not_kept_is_found_whatever_the_answer_says(memory_url: str, failures: object) -> None:
    def drop(request: Request) -> web.StreamResponse | None:
        is_meant = request.is_for("/keys/signatures/upload")
        return web.json_response({"failures": failures}) if is_meant else None

    async def scenario() -> None:
        async with identities() as (server, _):
            server.faults.append(drop)
            async with client_at(server, memory_url) as client:
                await client.login_or_restore("password")
                assert client.identity_state is IdentityState.STALE_SIGNATURE

    asyncio.run(scenario())


def test_what_the_homeserver_says_of_a_signature_is_told(memory_url: str, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(request: Request) -> web.StreamResponse | None:
        if not request.is_for("/keys/signatures/upload"):
            return None
        ((device_id, _),) = request.body[USER].items()
        said = {"errcode": "M_INVALID_SIGNATURE", "error": "Invalid signature"}
        return web.json_response({"failures": {USER: {device_id: said}}})

    async def scenario() -> None:
        async with identities() as (server, _), client_at(server, memory_url) as client:
            server.faults.append(refuse)
            await client.login_or_restore("password")

    asyncio.run(scenario())
    assert "M_INVALID_SIGNATURE Invalid signature" in caplog.text


def test_a_homeserver_that_lost_the_device_gets_it_again(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            await client.login_or_restore("password")
            await client.sync()
            device = (USER, str(client.device_id))
            keys = server.device_keys.pop(device)
            server.changed.append((server._advance(), USER))
            await client.sync()
            assert_whole(known, client)
            assert server.device_keys[device]["keys"] == keys["keys"]

    asyncio.run(scenario())


def test_a_homeserver_that_does_not_say_whose_identity_it_has_is_asked_later(memory_url: str) -> None:
    asked = 0

    def fail_second(request: Request) -> web.StreamResponse | None:
        nonlocal asked
        asked += request.is_for("/keys/query")
        is_meant = request.is_for("/keys/query") and asked == 2
        return answering("POST", "/keys/query", 500, "M_UNKNOWN") if is_meant else None

    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            server.faults.append(fail_second)
            with pytest.raises(HomeserverUnavailable, match="which identity the account has"):
                await client.login_or_restore("password")
            await client.login_or_restore("password")
            assert_whole(known, client)

    asyncio.run(scenario())


@pytest.mark.parametrize("is_right", [True, False])
def test_a_key_whose_description_has_no_check_is_judged_by_a_secret(memory_url: str, is_right: bool) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            seeds = Seeds.new()
            key = known.set_up(USER, seeds.by_name() | {BACKUP: os.urandom(32)})
            known.set_identity(USER, seeds)
            kind = "m.secret_storage.key." + known.data(USER, DEFAULT_KEY)["key"]
            known.put(USER, kind, {"algorithm": known.data(USER, kind)["algorithm"]})
            if is_right:
                await client.login_or_restore("password", recovery_key=recovery_key.encode(key))
                assert_whole(known, client)
            else:
                with pytest.raises(ConfigurationError, match="no secret was encrypted with it"):
                    await client.login_or_restore("password", recovery_key=recovery_key.encode(bytes(32)))
                assert kept_seeds(client) is None

    asyncio.run(scenario())


def test_a_recovery_key_that_opens_nothing_ends_no_sync(memory_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with identities() as (server, known):
            async with client_at(server, memory_url, cross_signing=False) as client:
                await client.login_or_restore("password")
                login = USER, str(client.device_id), client.access_token
            seeds = Seeds.new()
            known.set_up(USER, seeds.by_name())
            known.set_identity(USER, seeds)
            async with client_at(server, memory_url, recovery_key=recovery_key.encode(bytes(32))) as client:
                client.restore_login(*login)
                for _ in range(3):
                    await client.sync()
                assert client.identity_state is IdentityState.REFUSED
                await client.sign_before_room_keys()
            async with client_at(server, memory_url, recovery_key=recovery_key.encode(bytes(32))) as client:
                client.restore_login(*login)
                await client.open()
                await client.sign_before_room_keys()
                assert client.identity_state is IdentityState.REFUSED

    asyncio.run(scenario())
    assert caplog.text.count("does not open the account's secret storage") == 2


def test_the_key_of_a_backup_that_a_person_made_anew_is_taken_from_secret_storage(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            await client.login_or_restore("password")
            await client.sync()
            backup, key_id = os.urandom(32), str(known.data(USER, DEFAULT_KEY)["key"])
            known.put(USER, BACKUP, secret_storage.seal(BACKUP, key_id, kept_key(client), backup))
            await client.sync()
            assert_whole(known, client)
            assert client.production_store.secrets.get(BACKUP) == backup

    asyncio.run(scenario())
