"""`login_or_restore` and the account's own identity: made once, restored elsewhere, and never replaced in silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from client_pairs import CONFIG
from cryptostore import HomeserverUnavailable
from cryptostore.nio import IdentityState, ProductionMatrixClient
from cryptostore.trust import recovery_key
from cryptostore.trust.cross_signing import SECRET_NAMES
from cryptostore_contract.samples import KEY
from small_homeserver import SmallHomeserver, small_homeserver
from small_identities import KEYS, Identities

USER = "@bot:small"


@asynccontextmanager
async def identities() -> AsyncIterator[tuple[SmallHomeserver, Identities]]:
    """A small homeserver with cross-signing."""
    async with small_homeserver() as server:
        yield server, Identities(server)


def client_at(server: SmallHomeserver, url: str, **options: Any) -> ProductionMatrixClient:
    """A new client of the bot's on a database."""
    return ProductionMatrixClient(server.url, USER, store=url, pickle_key=KEY, config=CONFIG, **options)


def kept_recovery_key(client: ProductionMatrixClient) -> str:
    """The recovery key in the client's store."""
    held = client._trust.own._keys.storage_key
    assert held is not None
    return recovery_key.encode(held.key)


def test_a_first_start_makes_an_identity_and_signs_its_device(url: str) -> None:
    async def scenario() -> None:
        async with identities() as (server, known), client_at(server, url) as client:
            await client.login_or_restore("password")
            assert client.identity_state is IdentityState.SIGNED
            assert known.is_signed((USER, str(client.device_id)))
            secrets = client.production_store.secrets
            assert all(secrets.get(name) for name in (*SECRET_NAMES, "m.megolm_backup.v1"))

    asyncio.run(scenario())


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
                assert client.identity_state is IdentityState.SIGNED
                assert known.is_signed((USER, str(client.device_id)))
            assert known.master_key(USER) == master_key

    asyncio.run(scenario())
