"""Opening a client where something is wrong: a clear outcome, and nothing sent or lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from nio import AsyncClient, AsyncClientConfig

from client_pairs import ALICE, BOB, CONFIG, ROOM, people
from cryptostore import (
    BackendUnavailable,
    ConfigurationError,
    WrongPickleKey,
)
from cryptostore.nio import NioStore, ProductionMatrixClient
from cryptostore.nio.storage import backends
from cryptostore.store.crypto_store import CryptoStore
from cryptostore_contract.samples import KEY
from small_homeserver import small_homeserver


def a_client(server_url: str, url: str, pickle_key: str = KEY, **options: object) -> ProductionMatrixClient:
    return ProductionMatrixClient(
        server_url,
        ALICE.user_id,
        ALICE.device_id,
        store=url,
        pickle_key=pickle_key,
        config=CONFIG,
        **options,  # type: ignore[arg-type]  # whatever a test wants to set
    )


def test_a_database_that_is_away_at_the_start() -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            client = a_client(server.url, "postgresql://nobody:secret@127.0.0.1:1/keys?deadline=0.5")
            with pytest.raises(BackendUnavailable) as error:
                await client.open()
            assert "secret" not in str(error.value)
            with pytest.raises(BackendUnavailable):
                await client.login_or_restore("password")
            client.access_token = "token"
            with pytest.raises(BackendUnavailable):
                await client.sync()
            assert server.requests == []
            await client.close()

    asyncio.run(scenario())


def test_a_database_that_goes_away_during_the_opening_keeps_no_connection(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        client = a_client("http://localhost", memory_url)

        def away(_: CryptoStore, _prefixes: Any) -> Any:
            raise BackendUnavailable("away")

        monkeypatch.setattr(CryptoStore, "select_together", away)
        # The error's traceback holds on to the store, so that the garbage collector closes nothing.
        with pytest.raises(BackendUnavailable) as error:
            await client.open()
        assert not any(url == memory_url for _, url in backends._shared), error
        monkeypatch.undo()
        await client.open()
        await client.close()

    asyncio.run(scenario())


def test_another_pickle_key_is_refused_and_fences_nobody_out(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            await alice.say("one")
            with pytest.raises(WrongPickleKey):
                await a_client(server.url, url, "another key").open()
            await alice.say("two")
            await bob.round()
            assert bob.read == ["one", "two"]

    asyncio.run(scenario())


def test_a_client_for_one_device_does_not_become_another(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (_, alice, _bob):
            with pytest.raises(ConfigurationError, match=f"opened for {ALICE.user_id} {ALICE.device_id}, not for"):
                alice.client.restore_login(ALICE.user_id, "OTHER", "token")

    asyncio.run(scenario())


def test_restore_login_alone_is_enough_as_in_nio(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            await alice.client.close()
            client = a_client(server.url, memory_url)
            client.restore_login(ALICE.user_id, ALICE.device_id, f"token of {ALICE.device_id}")
            await client.sync()
            assert client.statistics.loop_reads == 0
            content = {"msgtype": "m.text", "body": "hello"}
            await client.room_send(ROOM, "m.room.message", content, ignore_unverified_devices=True)
            await bob.round()
            assert bob.read == ["hello"]
            await client.close()

    asyncio.run(scenario())


def test_a_stock_client_may_take_the_database_over_and_give_it_back(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            await alice.say("one")
            await alice.client.close()
            config = AsyncClientConfig(store=NioStore, store_sync_tokens=True, pickle_key=KEY)
            stock = AsyncClient(server.url, ALICE.user_id, ALICE.device_id, url, config)
            stock.restore_login(ALICE.user_id, ALICE.device_id, f"token of {ALICE.device_id}")
            await stock.sync(full_state=True)
            await stock.keys_query()
            content = {"msgtype": "m.text", "body": "two"}
            await stock.room_send(ROOM, "m.room.message", content, ignore_unverified_devices=True)
            await stock.close()
            assert isinstance(stock.store, NioStore)
            stock.store.close()
            await alice.start()
            # The stock client was told who changed, and keeps nothing of it.
            assert alice.client.users_for_key_query == {ALICE.user_id, BOB.user_id}
            await alice.round()
            await alice.say("three")
            await bob.round()
            assert bob.read == ["one", "two", "three"]

    asyncio.run(scenario())


def test_an_argument_that_nobody_knows_is_an_error(memory_url: str) -> None:
    with pytest.raises(TypeError, match="picle_key"):
        a_client("https://example.org", memory_url, picle_key="a secret")


def test_no_secret_in_the_repr() -> None:
    client = a_client("https://example.org", "postgresql://bot:database-secret@host/keys", "pickle-secret")
    shown = f"{client!r} {client.config!r} {client.store_path!r}"
    assert "secret" not in shown
