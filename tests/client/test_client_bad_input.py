"""What strangers, the homeserver and the database may do to a client: a clear outcome, and nothing lost."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from nio import LocalProtocolError
from psycopg.sql import SQL, Identifier

from client_pairs import ALICE, BOB, CONFIG, Person, people
from cryptostore import BackendUnavailable, ConfigurationError, CryptoStoreError, Device, SyncToken
from cryptostore.nio import ProductionMatrixClient
from odd_json import odd_versions
from postgres_database import PostgresDatabase
from small_homeserver import small_homeserver


@contextmanager
def read_only(database: PostgresDatabase) -> Iterator[None]:
    """Sessions that begin now cannot write, and no older ones are left."""

    def switch(command: str) -> None:
        with database.connect() as connection:
            connection.execute("SET default_transaction_read_only = off")
            row = connection.execute("SELECT current_database()").fetchone()
            assert row is not None
            connection.execute(SQL(command).format(Identifier(row[0])))
        database.end_sessions()

    switch("ALTER DATABASE {} SET default_transaction_read_only = on")
    try:
        yield
    finally:
        switch("ALTER DATABASE {} RESET default_transaction_read_only")


def test_a_database_that_becomes_read_only(postgres_url: str, postgres_database: PostgresDatabase) -> None:
    async def scenario() -> None:
        async with people(f"{postgres_url}&deadline=2", "memory://") as (server, alice, bob):
            (device,) = alice.client.device_store.active_user_devices(BOB.user_id)
            alice.client.verify_device(device)
            with read_only(postgres_database):
                asked = len(server.requests)
                with pytest.raises(BackendUnavailable, match="read-only"):
                    await alice.say("too early")
                with pytest.raises(BackendUnavailable, match="read-only"):
                    await Person(server, ALICE, f"{postgres_url}&deadline=1").start()
                assert len(server.requests) == asked
            await alice.say("in time")
            await bob.round()
            assert bob.read == ["in time"]
            assert [row.trust.value for row in alice.stored(Device) if row.user_id == BOB.user_id] == ["verified"]

    asyncio.run(scenario())


def test_a_database_whose_connections_end_while_a_message_is_sent(
    postgres_url: str, postgres_database: PostgresDatabase
) -> None:
    async def scenario() -> None:
        async with people(postgres_url, "memory://") as (_server, alice, bob):
            texts = [str(number) for number in range(20)]
            for text in texts:
                send = asyncio.create_task(alice.say(text))
                await asyncio.to_thread(postgres_database.end_sessions)
                await send
            await bob.round()
            assert bob.read == texts
            assert alice.client.statistics.failed_flushes == 0

    asyncio.run(scenario())


def test_a_client_without_a_device_id_says_so(memory_url: str) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            client = ProductionMatrixClient(
                server.url, ALICE.user_id, store=memory_url, pickle_key="pickle key", config=CONFIG
            )
            async with client:
                assert client.store is None
                with pytest.raises(LocalProtocolError, match="Not logged in"):
                    await client.keys_upload()
                client.access_token = "token"
                for request in (client.sync(), client.room_send("!room:small", "m.room.message", {"body": "plain"})):
                    with pytest.raises(ConfigurationError, match="no open store"):
                        await request
                with pytest.raises(CryptoStoreError, match="device_id"):
                    client.restore_login(ALICE.user_id, "", "token")
            assert server.requests == []

    asyncio.run(scenario())


#: What a sender decides: type and content. Each value is replaced by something odd, one at a time.
CONTENTS: dict[str, dict[str, Any]] = {
    "m.room.encrypted": {
        "algorithm": "m.olm.v1.curve25519-aes-sha2",
        "sender_key": "c2VuZGVy",
        "ciphertext": {"OWN KEY": {"type": 0, "body": "AwoggggG"}},
    },
    "m.room_key_request": {
        "action": "request",
        "body": {
            "algorithm": "m.megolm.v1.aes-sha2",
            "room_id": "!room:small",
            "sender_key": "c2VuZGVy",
            "session_id": "session",
        },
        "request_id": "request",
        "requesting_device_id": "DEVICE",
    },
    "m.key.verification.request": {
        "from_device": "ALICEPHONE",
        "transaction_id": "transaction",
        "methods": ["m.sas.v1"],
        "timestamp": 1_000_000_000_000,
    },
    "m.key.verification.ready": {
        "from_device": "ALICEPHONE",
        "transaction_id": "transaction",
        "methods": ["m.sas.v1"],
    },
    "m.key.verification.done": {"transaction_id": "transaction"},
    "m.key.verification.start": {
        "from_device": "ALICEPHONE",
        "transaction_id": "transaction",
        "method": "m.sas.v1",
        "key_agreement_protocols": ["curve25519"],
        "hashes": ["sha256"],
        "message_authentication_codes": ["hkdf-hmac-sha256"],
        "short_authentication_string": ["emoji", "decimal"],
    },
    "m.key.verification.accept": {
        "transaction_id": "transaction",
        "method": "m.sas.v1",
        "key_agreement_protocol": "curve25519",
        "hash": "sha256",
        "message_authentication_code": "hkdf-hmac-sha256",
        "short_authentication_string": ["emoji"],
        "commitment": "commitment",
    },
    "m.key.verification.key": {"transaction_id": "transaction", "key": "key"},
    "m.key.verification.mac": {"transaction_id": "transaction", "mac": {"ed25519:A": "mac"}, "keys": "keys"},
    "m.key.verification.cancel": {"transaction_id": "transaction", "code": "m.user", "reason": "reason"},
    "m.room_key": {"algorithm": "m.megolm.v1.aes-sha2", "room_id": "!a:b", "session_id": "s", "session_key": "k"},
    "m.dummy": {},
    "org.example": {"key": "value"},
}


@pytest.fixture
def no_log() -> Iterator[None]:
    """No log: nio writes what it got into it, and pytest's workers cannot send a lone surrogate."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("no_log")
@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("sender", [ALICE.user_id, BOB.user_id])
def test_malformed_to_device_events_hold_nothing_up(memory_url: str, kind: str, sender: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            own_key = bob.client.machine.account.identity_keys["curve25519"]
            server.page_size = 10_000
            received: list[Any] = []
            bob.client.add_to_device_callback(received.append, None)  # type: ignore[arg-type]  # every kind
            for content in itertools.chain([CONTENTS[kind]], odd_versions(CONTENTS[kind])):
                # A homeserver passes on objects alone.
                if isinstance(content, dict):
                    if isinstance(content.get("ciphertext"), dict) and "OWN KEY" in content["ciphertext"]:
                        content = content | {"ciphertext": {own_key: content["ciphertext"]["OWN KEY"]}}
                    server._send_to_device(sender, kind, {BOB.user_id: {BOB.device_id: content}})
            await alice.say("one")
            await bob.client.sync()
            assert bob.read == ["one"]
            await bob.errands()
            assert bob.stored(SyncToken) == [SyncToken(bob.client.next_batch)]
            await bob.say("two")
            await alice.round()
            assert alice.read == ["one", "two"]
            await bob.come_back_after_a_crash()
            await bob.round()

    asyncio.run(scenario())
