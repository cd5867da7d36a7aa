"""The account's own identity while the client runs, and where a login is restored: others change it, too."""

from __future__ import annotations

import asyncio
import os

import pytest
from aiohttp import web

from client_pairs import BOB, people
from cryptostore import HomeserverUnavailable, Record, Secret, Value
from cryptostore.nio import IdentityState
from cryptostore.trust import recovery_key, secret_storage
from cryptostore.trust.cross_signing import Seeds
from own_identities import (
    BACKUP,
    DEFAULT_KEY,
    USER,
    assert_whole,
    client_at,
    identities,
    kept_key,
    kept_seeds,
    uploads,
)
from small_homeserver import HangUp, Request
from small_identities import Identities, asked_for_data
from spoiling import spoil, stored_rows


def test_a_winner_whose_secret_storage_was_written_over_completes_it_after_the_next_sync(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            await client.login_or_restore("password")
            await client.sync()
            for kind in list(known.account_data[USER]):
                known.put(USER, kind, {})
            await client.sync()
            assert_whole(known, client)

    asyncio.run(scenario())


def test_a_sync_looks_again_only_where_something_changed(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            await client.login_or_restore("password")
            for _ in range(2):
                await client.sync()
            asked = len(server.asked("/keys/query")), len(asked_for_data(server))
            known.put(USER, "m.direct", {"@somebody:small": ["!room:small"]})
            for _ in range(2):
                await client.sync()
            assert (len(server.asked("/keys/query")), len(asked_for_data(server))) == asked

    asyncio.run(scenario())


def test_an_identity_that_another_client_replaced_is_not_put_back(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known):
            async with client_at(server, memory_url) as client:
                await client.login_or_restore("password")
                await client.sync()
                seeds = kept_seeds(client)
                assert seeds is not None
                theirs = Seeds.new()
                known.set_identity(USER, theirs)
                await client.sync()
                assert client.identity_state is IdentityState.OTHER_IDENTITY
                # Nothing can be signed with them by mistake.
                assert kept_seeds(client) is None
            async with client_at(server, memory_url) as client:
                await client.login_or_restore("password")
                assert client.identity_state is IdentityState.OTHER_IDENTITY
                assert known.master_key(USER) == theirs.public.master
                assert len(uploads(server)) == 1
                # The homeserver was put back from a backup: the identity is ours again.
                known.keys[USER] = seeds.upload(USER)
                server.changed.append((server._advance(), USER))
                await client.sync()
                assert_whole(known, client)
                assert kept_seeds(client) == seeds

    asyncio.run(scenario())


def test_a_new_self_signing_key_in_secret_storage_signs_the_device_again(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            await client.login_or_restore("password")
            await client.sync()
            seeds, key = kept_seeds(client), kept_key(client)
            assert seeds is not None
            newer = Seeds(seeds.master, os.urandom(32), seeds.user_signing)
            key_id = secret_storage.default_key_id(known.data(USER, DEFAULT_KEY))
            assert key_id is not None
            name = "m.cross_signing.self_signing"
            known.put(USER, name, secret_storage.seal(name, key_id, key, newer.self_signing))
            known.set_identity(USER, newer)
            assert not known.is_signed((USER, str(client.device_id)))
            await client.sync()
            assert_whole(known, client)
            assert kept_seeds(client) == newer

    asyncio.run(scenario())


def test_a_login_that_is_restored_completes_the_signature_before_the_first_room_key(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known):
            client = client_at(server, memory_url)

            def fault(request: Request) -> web.StreamResponse | None:
                return HangUp() if request.is_for("/keys/signatures/upload") else None

            server.faults.append(fault)
            with pytest.raises(HomeserverUnavailable):
                await client.login_or_restore("password")
            login = USER, str(client.device_id), client.access_token
            await client.close()
            server.faults.clear()
            server.make_room("!room:small", USER)
            async with client_at(server, memory_url) as client:
                client.restore_login(*login)
                server.requests.clear()
                await client.open()
                assert client.identity_state is IdentityState.UNKNOWN
                await client.sign_before_room_keys()
                assert_whole(known, client)
            assert len(uploads(server)) == 0

    asyncio.run(scenario())


def test_a_restored_login_takes_the_identity_over_with_the_first_sync(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known):
            async with client_at(server, memory_url, cross_signing=False) as client:
                await client.login_or_restore("password")
                await client.keys_upload()
                login = USER, str(client.device_id), client.access_token
            seeds = Seeds.new()
            key = known.set_up(USER, seeds.by_name() | {BACKUP: bytes(32)})
            known.set_identity(USER, seeds)
            async with client_at(server, memory_url, recovery_key=recovery_key.encode(key)) as client:
                client.restore_login(*login)
                await client.sync()
                assert_whole(known, client)

    asyncio.run(scenario())


def test_a_restored_login_makes_no_identity(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known):
            async with client_at(server, memory_url, cross_signing=False) as client:
                await client.login_or_restore("password")
                login = USER, str(client.device_id), client.access_token
            async with client_at(server, memory_url, recovery_key=recovery_key.encode(bytes(32))) as client:
                client.restore_login(*login)
                await client.sync()
                assert client.identity_state is IdentityState.NO_IDENTITY
            assert not known.keys
            assert not known.account_data[USER]

    asyncio.run(scenario())


def test_a_homeserver_that_is_away_after_a_sync_is_asked_later(
    memory_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            await client.login_or_restore("password")
            await client.sync()
            known.put(USER, "m.cross_signing.master", {})
            server.faults.append(lambda request: HangUp() if request.is_for("/account_data/") else None)
            for _ in range(3):
                await client.sync()
            server.faults.clear()
            client._trust.own._next = 0.0
            await client.sync()
            assert_whole(known, client)

    asyncio.run(scenario())
    assert caplog.text.count("was not looked at") == 1


def test_a_device_of_an_earlier_build_is_signed_by_the_identity_that_is_made_now(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known):
            async with client_at(server, memory_url, cross_signing=False) as client:
                await client.login_or_restore("password")
                await client.keys_upload()
                device_id = client.device_id
            async with client_at(server, memory_url) as client:
                await client.login_or_restore()
                assert client.device_id == device_id
                assert_whole(known, client)

    asyncio.run(scenario())


def test_no_room_key_goes_out_before_the_signature(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            known = Identities(server)
            await bob.client.close()
            server.faults.append(lambda asked: HangUp() if asked.is_for("/keys/signatures/upload") else None)
            bob.client = bob._make()
            with pytest.raises(HomeserverUnavailable):
                await bob.client.login_or_restore("password")
            assert known.master_key(BOB.user_id)
            server.faults.clear()
            await bob.restart()
            server.requests.clear()
            await bob.client.sync()
            bob.client._trust.own.opened()
            await bob.say("to alice")
            steps = [each.path.rpartition("/v3/")[2] for each in server.requests]
            signed = steps.index("keys/signatures/upload")
            assert signed < next(number for number, step in enumerate(steps) if step.startswith("sendToDevice/m.room"))
            assert known.is_signed((BOB.user_id, BOB.device_id))
            await alice.round()
            assert alice.read == ["to alice"]

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", [Secret, Value])
def test_secrets_that_cannot_be_read_are_not_replaced(
    memory_url: str, kind: type[Record], caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with identities() as (server, known):
            async with client_at(server, memory_url) as client:
                await client.login_or_restore("password")
                account = client.production_store.account_id
                master_key = known.master_key(USER)
            damaged = spoil(memory_url, account, kind)
            asked = len(uploads(server))
            async with client_at(server, memory_url) as client:
                await client.login_or_restore("password")
                assert client.identity_state is IdentityState.UNREADABLE
                for _ in range(2):
                    await client.sync()
            assert (known.master_key(USER), len(uploads(server))) == (master_key, asked)
            kept = [row for row in damaged if b"trust" in row.key or kind is Secret]
            assert kept
            assert set(kept) <= set(stored_rows(memory_url, account, kind))

    asyncio.run(scenario())
    assert "restore the account from a backup" in caplog.text


def test_a_first_start_and_a_later_one_ask_so_often(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, _):
            counts = []
            for _ in range(2):
                server.requests.clear()
                async with client_at(server, memory_url) as client:
                    await client.login_or_restore("password")
                counts.append(len(server.requests))
            # Of those, three and two are the login's, and two and two the anchor's.
            assert counts == [29, 11]

    asyncio.run(scenario())
