"""What happens seldom, between two clients or two requests, and must do no harm."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import web

from client_pairs import people, say_in_new_sessions
from cryptostore import HomeserverUnavailable
from cryptostore.nio import IdentityState
from cryptostore.nio.trust import own_identity, own_walk
from cryptostore.plugins.new_files import write_private
from cryptostore.trust import secret_storage
from cryptostore.trust.cross_signing import Seeds
from own_identities import BACKUP, DEFAULT_KEY, USER, assert_whole, client_at, identities, kept_key, opened
from small_homeserver import HangUp, Request
from verifying import BOB, town


def test_parts_of_a_sync_are_not_told_as_syncs(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            await alice.say("first")
            await bob.round()
            server.page_size = 3
            say_in_new_sessions(alice, [str(number) for number in range(10)])
            told = []

            async def note(_response: object) -> None:
                told.append(bob.client._gaps._one_turn.locked())

            bob.client._trust.after_sync.append(note)
            await bob.client.sync()
            assert bob.client.statistics.further_pages == 3
            # While a sync is handled nothing can be handed on, so whoever tries would wait for ever.
            assert told == [False]

    asyncio.run(scenario())


def test_seeds_that_another_client_is_about_to_use_are_not_written_over(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            await client.login_or_restore("password")
            await client.sync()
            key = kept_key(client)
            key_id = secret_storage.default_key_id(known.data(USER, DEFAULT_KEY))
            assert key_id is not None
            theirs = Seeds.new()
            for name, seed in theirs.by_name().items():
                known.put(USER, name, secret_storage.seal(name, key_id, key, seed))
            # A person types the password meanwhile.
            await client.sync()
            assert Seeds.of(opened(known, key)) == theirs
            known.set_identity(USER, theirs)
            await client.sync()
            assert known.master_key(USER) == theirs.public.master
            assert_whole(known, client)

    asyncio.run(scenario())


def test_a_client_without_identity_looks_at_once_at_what_another_one_makes(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            known.set_up(USER, {**Seeds.new().by_name(), BACKUP: bytes(32)})
            await client.login_or_restore("password")
            await client.sync()
            assert client.identity_state is IdentityState.LOCKED_STORAGE
            asked = len(server.asked("keys/query"))
            key_id = secret_storage.default_key_id(known.data(USER, DEFAULT_KEY))
            for name, seed in Seeds.new().by_name().items():
                known.put(USER, name, secret_storage.seal(name, str(key_id), bytes(32), seed))
            await client.sync()
            assert len(server.asked("keys/query")) > asked

    asyncio.run(scenario())


def test_a_start_that_was_refused_is_tried_again_after_a_pause(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_walk, "_LONGEST_WAIT", 0)

    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:

            def fault(asked: Request) -> web.StreamResponse | None:
                is_meant = asked.method == "PUT" and asked.is_for("account_data")
                return web.json_response({}) if is_meant else None

            # As where another host writes over it each time.
            server.faults.append(fault)
            await client.login_or_restore("password")
            assert client.identity_state is IdentityState.REFUSED
            server.faults.clear()
            await client.sync()
            assert client.identity_state is IdentityState.REFUSED
            monkeypatch.setattr(own_identity, "time", SimpleNamespace(monotonic=lambda: math.inf))
            await client.sync()
            assert_whole(known, client)

    asyncio.run(scenario())


def test_a_404_that_does_not_say_that_there_is_nothing_overwrites_nothing(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            known.set_up(USER, {**Seeds.new().by_name(), BACKUP: bytes(32)})
            before = dict(known.account_data[USER])

            def fault(asked: Request) -> web.StreamResponse | None:
                is_meant = asked.method == "GET" and asked.is_for("account_data/m.")
                return web.json_response({"errcode": "M_UNRECOGNIZED"}, status=404) if is_meant else None

            server.faults.append(fault)
            with pytest.raises(HomeserverUnavailable, match="M_UNRECOGNIZED"):
                await client.login_or_restore("password")
            assert dict(known.account_data[USER]) == before

    asyncio.run(scenario())


def test_an_error_does_not_say_that_there_is_no_cross_signing(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            known.leaves_empty_out = True
            server.faults.append(lambda asked: web.json_response({}, status=502) if asked.is_for("/versions") else None)
            with pytest.raises(HomeserverUnavailable):
                await client.login_or_restore("password")
            server.faults.clear()
            await client.login_or_restore("password")
            assert client.identity_state is IdentityState.SIGNED

    asyncio.run(scenario())


def test_a_reset_that_was_cut_short_is_completed_where_a_login_is_restored(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known):
            known.set_identity(USER, Seeds.new())
            async with client_at(server, memory_url) as client:
                await client.login_or_restore("password")

                def fault(asked: Request) -> web.StreamResponse | None:
                    if not asked.is_for("device_signing/upload") or not (asked.body or {}).get("auth"):
                        return None
                    known.handled(next(iter(server.tokens.values())), asked)
                    return HangUp()

                server.faults.append(fault)
                with pytest.raises(HomeserverUnavailable):
                    await client.reset_identity("password")
                token, device_id = client.access_token, str(client.device_id)
            server.faults.clear()
            async with client_at(server, memory_url, device_id=device_id) as client:
                client.restore_login(USER, device_id, token)
                await client.sync()
                assert_whole(known, client)

    asyncio.run(scenario())


def test_a_callback_for_verifications_may_close_the_client(memory_url: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place:
            bob, closed = place.bob.client, asyncio.Event()

            async def end(_verification: object) -> None:
                await bob.close()
                closed.set()

            bob.on_verification(end)
            await place.alice.client.request_verification(BOB.user_id)
            bobs = asyncio.create_task(bob.sync())
            await asyncio.wait_for(closed.wait(), 10)
            await asyncio.wait([bobs])
            bobs.exception()
            assert not bob._session.is_open

    asyncio.run(scenario())


def test_a_file_that_cannot_be_written_whole_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_private(tmp_path / "key", "\ud800", "a key")
    assert list(tmp_path.iterdir()) == []
