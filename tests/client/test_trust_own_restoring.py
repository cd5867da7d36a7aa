"""`login_or_restore` with a recovery key: an identity that another client made, or a database that is lost."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from cryptostore import ConfigurationError
from cryptostore.nio import IdentityState
from cryptostore.trust import recovery_key
from cryptostore.trust.cross_signing import SECRET_NAMES, Seeds
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


def test_a_lost_database_is_no_loss_with_the_recovery_key(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known):
            async with client_at(server, memory_url) as client:
                await client.login_or_restore("password")
                text, seeds = recovery_key.encode(kept_key(client)), kept_seeds(client)
                backup = client.production_store.secrets.get(BACKUP)
            async with client_at(server, f"{memory_url}2", recovery_key=text) as client:
                await client.login_or_restore("password")
                assert_whole(known, client)
                assert kept_seeds(client) == seeds
                assert client.production_store.secrets.get(BACKUP) == backup
            assert len(uploads(server)) == 1

    asyncio.run(scenario())


def test_without_the_recovery_key_the_device_stays_unsigned_and_says_so(
    memory_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with identities() as (server, known):
            known.set_identity(USER, Seeds.new())
            for _ in range(2):
                async with client_at(server, memory_url) as client:
                    await client.login_or_restore("password")
                    assert client.identity_state is IdentityState.OTHER_IDENTITY
                    assert kept_seeds(client) is None
            assert not uploads(server)
            assert not known.account_data[USER]

    asyncio.run(scenario())
    for remedy in (
        "recovery_key=",
        "CRYPTOSTORE_RECOVERY_KEY,",
        "CRYPTOSTORE_RECOVERY_KEY_FILE",
        "verify this device",
        "reset_identity()",
    ):
        assert remedy in caplog.text


@pytest.mark.parametrize("passphrase", ["", "a passphrase of a person"])
def test_an_account_that_a_person_made_is_restored_by_recovery_key_or_passphrase(
    memory_url: str, passphrase: str
) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            seeds, backup = Seeds.new(), os.urandom(32)
            key = known.set_up(USER, seeds.by_name() | {BACKUP: backup}, passphrase)
            known.set_identity(USER, seeds)
            before = dict(known.account_data[USER])
            await client.login_or_restore("password", recovery_key=passphrase or recovery_key.encode(key))
            assert_whole(known, client)
            assert (kept_seeds(client), kept_key(client)) == (seeds, key)
            assert client.production_store.secrets.get(BACKUP) == backup
            assert known.account_data[USER] == before

    asyncio.run(scenario())


def test_a_mistyped_recovery_key_ends_a_start_before_anything(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, _):
            text = recovery_key.encode(os.urandom(32))
            damaged = text[:-1] + ("A" if text[-1] != "A" else "B")
            with pytest.raises(ConfigurationError, match="typing error") as caught:
                client_at(server, memory_url, recovery_key=damaged)
            assert damaged not in str(caught.value)
            async with client_at(server, memory_url) as client:
                with pytest.raises(ConfigurationError, match="typing error"):
                    await client.login_or_restore("password", recovery_key=damaged)
            assert not server.requests

    asyncio.run(scenario())


@pytest.mark.parametrize("given", [recovery_key.encode(bytes(32)), "no passphrase of theirs"])
@pytest.mark.parametrize("passphrase", ["", "a passphrase of a person"])
def test_a_recovery_key_of_another_secret_storage_is_refused_and_the_right_one_helps(
    memory_url: str, given: str, passphrase: str
) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            seeds = Seeds.new()
            key = known.set_up(USER, seeds.by_name() | {BACKUP: os.urandom(32)}, passphrase)
            known.set_identity(USER, seeds)
            with pytest.raises(ConfigurationError, match="does not open the account's secret storage") as caught:
                await client.login_or_restore("password", recovery_key=given)
            assert given not in str(caught.value)
            assert kept_seeds(client) is None
            await client.login_or_restore("password", recovery_key=recovery_key.encode(key))
            assert_whole(known, client)

    asyncio.run(scenario())


def test_a_recovery_key_that_is_not_needed_any_more_ends_no_start(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known):
            async with client_at(server, memory_url) as client:
                await client.login_or_restore("password")
                seeds = kept_seeds(client)
                assert seeds is not None
            # A person gave the same identity another recovery key.
            known.set_up(USER, seeds.by_name())
            before = dict(known.account_data[USER])
            async with client_at(server, memory_url, recovery_key=recovery_key.encode(bytes(32))) as client:
                await client.login_or_restore()
                assert client.identity_state is IdentityState.SIGNED
            assert known.account_data[USER] == before

    asyncio.run(scenario())


def _without(name: str) -> dict[str, bytes]:
    return {each: os.urandom(32) for each in SECRET_NAMES if each != name}


@pytest.mark.parametrize(
    ("secrets", "problem"),
    [
        (Seeds.new().by_name(), "are not those of the identity"),
        (_without("m.cross_signing.user_signing"), "has no m.cross_signing.user_signing"),
    ],
)
def test_secrets_that_are_not_the_identitys_are_not_used(
    memory_url: str, secrets: dict[str, bytes], problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            key = known.set_up(USER, secrets)
            known.set_identity(USER, Seeds.new())
            await client.login_or_restore("password", recovery_key=recovery_key.encode(key))
            assert client.identity_state is IdentityState.OTHER_IDENTITY
            assert kept_seeds(client) is None
            assert not uploads(server)

    asyncio.run(scenario())
    assert problem in caplog.text


@pytest.mark.parametrize("content", [{}, {"encrypted": "text"}, {"encrypted": {"KEY": "text"}}, {"encrypted": {}}])
def test_account_data_that_is_no_secret_opens_nothing(memory_url: str, content: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            seeds = Seeds.new()
            key = known.set_up(USER, seeds.by_name())
            known.set_identity(USER, seeds)
            known.put(USER, "m.cross_signing.self_signing", content)
            await client.login_or_restore("password", recovery_key=recovery_key.encode(key))
            assert client.identity_state is IdentityState.OTHER_IDENTITY
            assert kept_seeds(client) is None

    asyncio.run(scenario())


@pytest.mark.parametrize("key_id", ["", "\ud800", "a\0b", "long" * 100, "../../../../v3/logout"])
def test_key_ids_that_nobody_can_keep_end_no_start(memory_url: str, key_id: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known):
            seeds = Seeds.new()
            known.set_up(USER, seeds.by_name())
            known.set_identity(USER, seeds)
            known.put(USER, DEFAULT_KEY, {"key": key_id})
            for name in SECRET_NAMES:
                known.put(USER, name, {"encrypted": {key_id: {}}})
            async with client_at(server, memory_url) as client:
                await client.login_or_restore("password")
                assert client.identity_state is IdentityState.OTHER_IDENTITY
                await client.sync()
            async with client_at(server, f"{memory_url}2", recovery_key=recovery_key.encode(bytes(32))) as client:
                with pytest.raises(ConfigurationError, match="does not open"):
                    await client.login_or_restore("password")
            assert not any(each.parts == ["logout"] for each in server.requests)

    asyncio.run(scenario())


def test_an_identity_whose_signatures_do_not_verify_is_neither_used_nor_replaced(memory_url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, memory_url) as client:
            seeds = Seeds.new()
            known.set_identity(USER, seeds)
            known.keys[USER]["self_signing_key"] = Seeds.new().upload(USER)["self_signing_key"]
            key = known.set_up(USER, seeds.by_name())
            await client.login_or_restore("password", recovery_key=recovery_key.encode(key))
            assert client.identity_state is IdentityState.OTHER_IDENTITY
            assert not uploads(server)
            assert not server.asked("/keys/signatures/upload")

    asyncio.run(scenario())


def test_a_device_id_that_was_signed_with_other_keys_is_given_up(
    memory_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with identities() as (server, known):
            async with client_at(server, memory_url) as client:
                await client.login_or_restore("password")
                text, device_id = recovery_key.encode(kept_key(client)), str(client.device_id)
            server.delete_device((USER, device_id))
            async with client_at(server, f"{memory_url}2", recovery_key=text, device_id=device_id) as client:
                await client.login_or_restore("password")
                assert client.identity_state is IdentityState.STALE_SIGNATURE
            async with client_at(server, f"{memory_url}3", recovery_key=text) as client:
                await client.login_or_restore("password")
                assert_whole(known, client)

    asyncio.run(scenario())
    assert "log in as a new device" in caplog.text


def test_a_recovery_key_from_a_file_is_found_in_the_environment(
    memory_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with identities() as (server, known):
            seeds = Seeds.new()
            key = known.set_up(USER, seeds.by_name() | {BACKUP: bytes(32)})
            known.set_identity(USER, seeds)
            file = tmp_path / "recovery"
            file.write_text(recovery_key.encode(key) + "\n")
            file.chmod(0o600)
            monkeypatch.setenv("CRYPTOSTORE_RECOVERY_KEY_FILE", str(file))
            async with client_at(server, memory_url) as client:
                assert recovery_key.encode(key) not in repr(client)
                await client.login_or_restore("password")
                assert_whole(known, client)
            monkeypatch.setenv("CRYPTOSTORE_RECOVERY_KEY", "text")
            with pytest.raises(ConfigurationError, match="either CRYPTOSTORE_RECOVERY_KEY or"):
                client_at(server, memory_url)

    asyncio.run(scenario())
