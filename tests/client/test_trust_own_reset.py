"""`reset_identity`: only on request, with whatever the homeserver wants for it, and whole whatever cuts it short."""

from __future__ import annotations

import asyncio

import pytest

from client_pairs import abandon
from cryptostore import ConfigurationError, HomeserverUnavailable
from cryptostore.nio import IdentityState
from cryptostore.trust import recovery_key
from cryptostore.trust.cross_signing import Seeds
from cryptostore.trust.secret_storage import WrongSecretStorageKey
from own_identities import (
    BACKUP,
    USER,
    assert_whole,
    client_at,
    fail_at,
    identities,
    kept_key,
    kept_seeds,
    opened,
    uploads,
)


def test_a_reset_replaces_identity_and_recovery_key_and_keeps_the_backup_key(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, url) as client:
            await client.login_or_restore("password")
            seeds, key, backup = kept_seeds(client), kept_key(client), opened(known, kept_key(client))[BACKUP]
            await client.reset_identity("password")
            assert_whole(known, client)
            assert kept_seeds(client) != seeds
            assert opened(known, kept_key(client))[BACKUP] == backup
            assert kept_key(client) != key
            with pytest.raises(WrongSecretStorageKey):
                opened(known, key)
            await client.sync()
            assert_whole(known, client)

    asyncio.run(scenario())
    assert "everybody who verified the account is warned" in caplog.text


def test_a_reset_replaces_another_clients_identity_and_secret_storage(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            theirs = Seeds.new()
            known.set_up(USER, theirs.by_name() | {BACKUP: bytes(32)})
            known.set_identity(USER, theirs)
            await client.login_or_restore("password")
            assert client.identity_state is IdentityState.OTHER_IDENTITY
            text = recovery_key.encode(bytes(range(32)))
            await client.reset_identity("password", recovery_key=text)
            assert_whole(known, client)
            assert kept_key(client) == bytes(range(32))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("password", "flows", "problem"),
    [
        ("guessed", [["m.login.password"]], "the password is wrong"),
        (None, [["m.login.password"]], "give it as password="),
        ("password", [], "no way to give it"),
        ("password", [["m.login.sso"], ["m.login.password", "m.login.msisdn"]], "m.login.sso or m.login.password and"),
        ("password", [["m.oauth"]], "approve it in a browser, at https://auth.small/approve"),
    ],
)
def test_a_reset_that_is_refused_changes_nothing_and_says_what_to_do(
    memory_url: str, password: str | None, flows: list[list[str]], problem: str
) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            await client.login_or_restore("password")
            known.flows, known.params = flows, {"m.oauth": {"url": "https://auth.small/approve"}}
            with pytest.raises(ConfigurationError, match=problem) as caught:
                await client.reset_identity(password)
            assert "guessed" not in str(caught.value)
            assert_whole(known, client)
            sent = [each.body.get("auth", {}).get("type") for each in uploads(server)[1:]]
            assert sent == ([None, "m.login.password"] if password == "guessed" else [None])

    asyncio.run(scenario())


def test_what_a_person_approved_is_done_with_the_same_keys(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            await client.login_or_restore("password")
            known.flows = [["m.oauth"]]
            with pytest.raises(ConfigurationError):
                await client.reset_identity()
            wanted = uploads(server)[-1].body
            # The person approves: the homeserver takes the next upload as it is.
            known.keys.clear()
            await client.reset_identity()
            assert uploads(server)[-1].body == wanted
            assert_whole(known, client)

    asyncio.run(scenario())


def test_a_homeserver_that_fails_in_a_reset_is_unavailable(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            await client.login_or_restore("password")
            seeds = kept_seeds(client)
            fail_at(server, known, 1, done=False)
            with pytest.raises(HomeserverUnavailable):
                await client.reset_identity("password")
            await client.login_or_restore()
            assert kept_seeds(client) == seeds
            assert_whole(known, client)

    asyncio.run(scenario())


@pytest.mark.parametrize("done", [False, True])
def test_a_reset_that_was_cut_short_anywhere_ends_whole(memory_url: str, done: bool) -> None:
    async def scenario(number: int) -> bool:
        async with identities() as (server, known):
            url = f"{memory_url}{number}"
            client = client_at(server, url)
            await client.login_or_restore("password")
            former = kept_seeds(client)
            came = fail_at(server, known, number, done=done)
            try:
                await client.reset_identity("password")
            except HomeserverUnavailable:
                await abandon(client)
            else:
                await client.close()
                return len(came) >= number
            server.faults.clear()
            async with client_at(server, url) as client:
                await client.login_or_restore("password")
                assert_whole(known, client)
                is_former = kept_seeds(client) == former
                assert len(known.used_keys(USER)) == (3 if is_former else 6)
                # What was not replaced can be.
                await client.reset_identity("password")
                assert_whole(known, client)
                assert len(known.used_keys(USER)) == (6 if is_former else 9)
            return True

    number = 1
    while asyncio.run(scenario(number)):
        number += 1
    assert number > 15


def test_seeds_that_the_homeserver_will_never_take_again_are_not_tried_for_ever(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known):
            client = client_at(server, memory_url)
            await client.login_or_restore("password")
            fail_at(server, known, 2, done=True)
            with pytest.raises(HomeserverUnavailable):
                await client.reset_identity("password")
            assert len(known.used_keys(USER)) == 6
            await abandon(client)
            server.faults.clear()
            # Before the bot is back, another client replaces the identity.
            known.set_identity(USER, Seeds.new())
            async with client_at(server, memory_url) as client:
                await client.login_or_restore("password")
                assert client.identity_state is IdentityState.OTHER_IDENTITY
                with pytest.raises(HomeserverUnavailable, match="M_UNKNOWN"):
                    await client.reset_identity("password")
                await client.reset_identity("password")
                assert_whole(known, client)

    asyncio.run(scenario())
