"""`login_or_restore` makes the account's own identity: once, in a safe order, whatever cuts it short."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest
from aiohttp import web

from client_pairs import abandon
from cryptostore import ConfigurationError, HomeserverUnavailable
from cryptostore.nio import IdentityState
from cryptostore.trust import recovery_key, secret_storage
from cryptostore.trust.cross_signing import SECRET_NAMES, Seeds
from own_identities import (
    BACKUP,
    DEFAULT_KEY,
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
from small_homeserver import HangUp, Request, small_homeserver
from small_identities import KEYS, asked_for_data, is_anchor
from told import Told


def test_a_first_start_makes_an_identity_and_signs_its_device(url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known):
            async with client_at(server, url) as client:
                await client.login_or_restore("password")
                assert_whole(known, client)
                key, seeds = kept_key(client), kept_seeds(client)
            async with client_at(server, url) as client:
                await client.login_or_restore()
                assert_whole(known, client)
                assert (kept_key(client), kept_seeds(client)) == (key, seeds)
            assert len(uploads(server)) == 1
            # Nothing of it was written twice.
            assert len([each for each in asked_for_data(server) if each.method == "PUT"]) == 6

    asyncio.run(scenario())


def test_secret_storage_is_whole_before_the_identity_and_the_identity_before_the_signature(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, _), client_at(server, memory_url) as client:
            await client.login_or_restore("password")
            sent = [each for each in server.requests if each.method in ("PUT", "POST") and not is_anchor(each.path)]
            asked = [each.parts for each in sent]
            steps = [parts[-1] if "account_data" in parts else "/".join(parts[1:]) for parts in asked]
            # After the login, which has asked whose keys the homeserver has.
            assert [each.partition("m.secret_storage.key.")[1] or each for each in steps[2:]] == [
                "query",
                "upload",
                "query",
                "m.secret_storage.key.",
                *SECRET_NAMES,
                BACKUP,
                DEFAULT_KEY,
                "device_signing/upload",
                "query",
                "signatures/upload",
                "query",
            ]

    asyncio.run(scenario())


@pytest.mark.parametrize("done", [False, True])
def test_a_start_that_was_cut_short_anywhere_is_completed_with_the_same_keys(memory_url: str, done: bool) -> None:
    async def scenario(number: int) -> bool:
        async with identities() as (server, known):
            came = fail_at(server, known, number, done=done)
            client = client_at(server, f"{memory_url}{number}")
            try:
                await client.login_or_restore("password")
            except HomeserverUnavailable:
                seeds = kept_seeds(client)
            else:
                await client.close()
                return len(came) >= number
            await abandon(client)
            server.faults.clear()
            async with client_at(server, f"{memory_url}{number}") as client:
                await client.login_or_restore("password")
                assert_whole(known, client)
                assert seeds in (None, kept_seeds(client))
                assert len(known.used_keys(USER)) == 3
            return True

    assert asyncio.run(scenario(1))
    number = 2
    while asyncio.run(scenario(number)):
        number += 1
    assert number > 20


def test_an_identity_that_the_homeserver_stored_in_part_is_completed_with_the_same_keys(url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known):
            known.keeps = ("master_key",)
            async with client_at(server, url) as client:
                with pytest.raises(HomeserverUnavailable):
                    await client.login_or_restore("password")
            master_key = known.master_key(USER)
            known.keeps = KEYS
            async with client_at(server, url) as client:
                await client.login_or_restore("password")
                assert_whole(known, client)
            assert known.master_key(USER) == master_key

    asyncio.run(scenario())


def test_a_passphrase_makes_a_secret_storage_that_it_opens(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known):
            server.faults.append(
                lambda asked: HangUp() if asked.method == "PUT" and asked.is_for(DEFAULT_KEY) else None
            )
            client = client_at(server, memory_url)
            with pytest.raises(HomeserverUnavailable):
                await client.login_or_restore("password", recovery_key="correct horse battery")
            await abandon(client)
            server.faults.clear()
            # Without the passphrase, with the salt of the first try.
            async with client_at(server, memory_url) as client:
                await client.login_or_restore("password")
                assert_whole(known, client)
            async with client_at(server, f"{memory_url}2", recovery_key="correct horse battery") as client:
                await client.login_or_restore("password")
                assert_whole(known, client)

    asyncio.run(scenario())


def test_secret_storage_of_a_client_that_was_cut_short_is_not_overwritten(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known):
            seeds = Seeds.new()
            key = known.set_up(USER, seeds.by_name() | {BACKUP: os.urandom(32)})
            before = dict(known.account_data[USER])
            async with client_at(server, memory_url) as client:
                await client.login_or_restore("password")
                assert client.identity_state is IdentityState.LOCKED_STORAGE
                assert known.account_data[USER] == before
                assert not uploads(server)
                await client.login_or_restore("password", recovery_key=recovery_key.encode(key))
                assert_whole(known, client)
                assert kept_seeds(client) == seeds

    asyncio.run(scenario())


def test_a_persons_secret_storage_without_identity_is_completed_and_keeps_its_backup_key(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            backup = os.urandom(32)
            key = known.set_up(USER, {BACKUP: backup})
            await client.login_or_restore("password", recovery_key=recovery_key.encode(key))
            assert_whole(known, client)
            assert opened(known, key)[BACKUP] == backup

    asyncio.run(scenario())


def test_a_homeserver_without_cross_signing_is_said_once(memory_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server, client_at(server, memory_url) as client:
            await client.login_or_restore("password")
            for _ in range(3):
                await client.sync()
            assert client.identity_state is IdentityState.UNSUPPORTED
            assert not asked_for_data(server)

    asyncio.run(scenario())
    assert caplog.text.count("has no cross-signing") == 1


def test_a_homeserver_that_leaves_empty_answers_out_has_cross_signing(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            known.leaves_empty_out = True
            await client.login_or_restore("password")
            assert_whole(known, client)

    asyncio.run(scenario())


def test_a_homeserver_may_want_the_password_for_the_first_identity(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            known.wants_password_at_first = True
            server.versions[:] = ["r0.6.1", "v1.1", "v1.10"]
            await client.login_or_restore("password")
            assert_whole(known, client)
            assert ["auth" in each.body for each in uploads(server)] == [False, True]

    asyncio.run(scenario())


def test_where_a_first_identity_is_free_the_password_answers_no_question_for_it(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            # As where another client was faster, and the homeserver does not show its identity yet.
            known.wants_password_at_first = True
            await client.login_or_restore("password")
            assert client.identity_state is IdentityState.REFUSED
            assert ["auth" in each.body for each in uploads(server)] == [False]
            known.wants_password_at_first = False
            client._trust.own.look_again()
            await client.sync()
            assert_whole(known, client)

    asyncio.run(scenario())


@pytest.mark.parametrize("flows", [[], [["m.login.sso"]], [["m.login.password", "m.login.email.identity"]]])
def test_stages_that_need_a_person_are_named(
    memory_url: str, flows: list[list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            known.wants_password_at_first, known.flows = True, flows
            server.versions[:] = ["v1.10"]
            await client.login_or_restore("password")
            assert client.identity_state is IdentityState.REFUSED
            assert not any("auth" in each.body for each in uploads(server))

    asyncio.run(scenario())
    assert (" and ".join(flows[0]) if flows else "no way to give it") in caplog.text


def test_somebody_who_was_faster_is_not_replaced_by_the_password(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            theirs = Seeds.new()

            def fault(request: Request) -> None:
                if request.is_for("/keys/device_signing/upload") and USER not in known.keys:
                    known.set_identity(USER, theirs)

            server.faults.append(fault)
            await client.login_or_restore("password")
            assert client.identity_state is IdentityState.OTHER_IDENTITY
            assert known.master_key(USER) == theirs.public.master
            assert [("auth" in each.body) for each in uploads(server)] == [False]
            assert kept_seeds(client) is None
            # What was put into secret storage is gone: it would open nothing.
            assert not any(content for _, content in known.account_data[USER].values())

    asyncio.run(scenario())


def test_of_two_uploads_that_were_both_taken_the_homeserver_shows_which_counts(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            theirs = Seeds.new()

            def fault(request: Request) -> web.StreamResponse | None:
                if not request.is_for("/keys/device_signing/upload"):
                    return None
                # The winner's secret storage is written over ours.
                known.set_up(USER, theirs.by_name() | {BACKUP: bytes(32)})
                known.set_identity(USER, theirs)
                return web.json_response({})

            server.faults.append(fault)
            await client.login_or_restore("password")
            assert client.identity_state is IdentityState.OTHER_IDENTITY
            assert kept_seeds(client) is None
            assert {known.master_key(USER)} == {theirs.public.master}
            assert secret_storage.default_key_id(known.data(USER, DEFAULT_KEY))
            assert all(known.data(USER, name) for name in SECRET_NAMES)

    asyncio.run(scenario())


def test_without_cross_signing_nothing_is_asked(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url, cross_signing=False) as client:
            await client.login_or_restore("password")
            await client.sync()
            assert client.identity_state is IdentityState.OFF
            assert not known.keys
            assert not asked_for_data(server)
            with pytest.raises(ConfigurationError, match="cross_signing=False"):
                await client.reset_identity("password")

    asyncio.run(scenario())


def test_the_recovery_key_is_written_into_a_file_of_its_owner_once(
    memory_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, told: Told
) -> None:
    file = tmp_path / "recovery"

    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            await client.login_or_restore("password")
            assert caplog.text.count("cryptostore identity recovery-key") == 1
            await client.login_or_restore("password", new_recovery_key_file=file)
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert recovery_key.decode(file.read_text()) == kept_key(client)
            file.unlink()
            await client.login_or_restore("password", new_recovery_key_file=file)
            assert not file.exists()
            assert_whole(known, client)

    asyncio.run(scenario())
    assert caplog.text.count("cryptostore identity recovery-key") == 1
    facts = ("secret_name", "way", "destination")
    assert told.of("secret_exported", *facts) == [("recovery key", "login_or_restore", str(file))]


def test_a_file_that_holds_something_else_is_not_overwritten_by_the_recovery_key(
    memory_url: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with identities() as (server, _), client_at(server, memory_url) as client:
            file = tmp_path / "recovery"
            file.write_text("somebody's")
            with pytest.raises(ConfigurationError, match="cannot write the recovery key"):
                await client.login_or_restore("password", new_recovery_key_file=file)
            assert file.read_text() == "somebody's"
            file.write_text(recovery_key.encode(kept_key(client)) + "\n")
            await client.login_or_restore("password", new_recovery_key_file=file)

    asyncio.run(scenario())
