"""A stock AsyncClient whose whole change is its configuration, fed with sync responses and no network."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nio import AsyncClient, AsyncClientConfig, ClientConfig, RoomMessageText, SyncResponse
from nio.crypto import OlmDevice

from cryptostore import Changes, EncryptedRoom, InboundGroupSession, OlmAccount, OlmSession, Record, SyncToken
from cryptostore.nio import NioStore
from cryptostore_contract.cases.nio_machines import ROOM, Event, Machine
from cryptostore_contract.samples import ALICE, BOB, KEY
from nio_places import Counted, Ours, olm_session

CONFIG = AsyncClientConfig(store=NioStore, store_sync_tokens=True, pickle_key=KEY)


class Client:
    """Bob's client, and what it read."""

    def __init__(self, store_path: str, config: AsyncClientConfig = CONFIG) -> None:
        self.nio = AsyncClient("https://example.org", BOB.user_id, BOB.device_id, store_path, config)
        self.nio.restore_login(BOB.user_id, BOB.device_id, "token")
        self.read: list[str] = []
        self.nio.add_event_callback(self._note, RoomMessageText)

    async def _note(self, _room: Any, event: Any) -> None:
        self.read.append(event.body)

    @property
    def store(self) -> NioStore:
        assert isinstance(self.nio.store, NioStore)
        return self.nio.store

    def receive(self, sync: SyncResponse) -> None:
        asyncio.run(self.nio.receive_response(sync))

    def meet(self, alice: Machine) -> None:
        """Let Alice have an Olm session with this client."""
        assert self.nio.olm is not None
        bob = self.nio.olm
        bob.account.generate_one_time_keys(1)
        (one_time_key,) = bob.account.one_time_keys["curve25519"].values()
        bob.mark_keys_as_published()
        bob.save_account()
        keys = bob.account.identity_keys
        device = OlmDevice(BOB.user_id, BOB.device_id, {"ed25519": keys["ed25519"], "curve25519": keys["curve25519"]})
        alice.store.save_device_keys({BOB.user_id: {BOB.device_id: device}})
        alice.olm.verify_device(device)
        alice.olm.create_session(one_time_key, device.curve25519)


@pytest.fixture
def alice(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(ALICE, f"sqlite:///{tmp_path}/alice.db", KEY)
    yield machine
    machine.close()


def sync(token: str, to_device: list[Event] | None = None, timeline: list[Event] | None = None) -> SyncResponse:
    encryption = {
        "type": "m.room.encryption",
        "event_id": "$encryption",
        "sender": ALICE.user_id,
        "state_key": "",
        "origin_server_ts": 1,
        "content": {"algorithm": "m.megolm.v1.aes-sha2"},
    }
    room = {
        "timeline": {"events": timeline or [], "limited": False, "prev_batch": "p"},
        "state": {"events": [encryption]},
        "ephemeral": {"events": []},
        "account_data": {"events": []},
    }
    response = SyncResponse.from_dict(
        {
            "next_batch": token,
            "device_one_time_keys_count": {"signed_curve25519": 50},
            "device_lists": {"changed": [], "left": []},
            "rooms": {"join": {ROOM: room} if timeline else {}, "invite": {}, "leave": {}},
            "to_device": {"events": to_device or []},
            "presence": {"events": []},
        }
    )
    assert isinstance(response, SyncResponse)
    return response


def kinds(batches: list[Changes]) -> list[list[type[Record]]]:
    return [sorted(batch.kinds(), key=lambda kind: kind.kind_number) for batch in batches]


def test_a_sync_is_durable_before_its_token(ours: Ours, alice: Machine, counted: Counted) -> None:
    client = Client(ours.url)
    client.meet(alice)
    key, message = alice.share_room_key(BOB.user_id), alice.say("hello", 1)
    counted.batches.clear()
    client.receive(sync("s1", [key], [message]))
    assert client.read == ["hello"]
    # nio saves the account, then the Olm session (with the account, whose one-time key is consumed), then the room key.
    assert kinds(counted.batches) == [[OlmAccount, OlmSession], [InboundGroupSession], [SyncToken, EncryptedRoom]]
    assert ours.stored(SyncToken, BOB) == [SyncToken("s1")]
    client.store.close()

    client = Client(ours.url)
    assert client.nio.loaded_sync_token == "s1"
    assert client.nio.encrypted_rooms == {ROOM}
    client.receive(sync("s2", [], [message, alice.say("again", 2)]))
    assert client.read == ["hello", "again"]
    client.store.close()


def test_a_client_that_keeps_its_folder_reads_on_after_a_restart(ours: Ours, alice: Machine, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    config = replace(CONFIG, store=NioStore.at(ours.url))
    client = Client(str(folder), config)
    client.meet(alice)
    client.receive(sync("s1", [alice.share_room_key(BOB.user_id)], [alice.say("hello", 1)]))
    client.store.close()

    client = Client(str(folder), config)
    assert client.nio.loaded_sync_token == "s1"
    client.receive(sync("s2", [], [alice.say("again", 2)]))
    assert client.read == ["again"]
    client.store.close()
    assert list(folder.iterdir()) == []


def test_a_token_comes_with_every_sync_though_no_room_is_encrypted(in_memory: Ours, counted: Counted) -> None:
    client = Client(in_memory.url)
    for token in ("s1", "s2"):
        counted.batches.clear()
        client.receive(sync(token))
        assert kinds(counted.batches) == [[SyncToken]]
        assert in_memory.stored(SyncToken, BOB) == [SyncToken(token)]
    client.store.close()


def test_a_sync_that_is_broken_off_leaves_the_token_before_it(in_memory: Ours, alice: Machine) -> None:
    client = Client(in_memory.url)
    client.meet(alice)
    client.receive(sync("s1"))

    async def break_off(*_: Any) -> None:
        raise RuntimeError

    client.nio.add_to_device_callback(break_off, None)  # type: ignore[arg-type]  # nio takes None for every event
    with pytest.raises(RuntimeError):
        client.receive(sync("s2", [alice.share_room_key(BOB.user_id)]))
    # Its key was saved when it was received, its token was not.
    assert len(in_memory.stored(InboundGroupSession, BOB)) == 1
    assert in_memory.stored(SyncToken, BOB) == [SyncToken("s1")]
    # Whatever else nio saves, that token does not come along.
    client.store.save_session("curve", olm_session())
    assert in_memory.stored(SyncToken, BOB) == [SyncToken("s1")]
    client.store.close()
    assert Client(in_memory.url).nio.loaded_sync_token == "s1"


def test_keys_are_exported_and_imported(ours: Ours, alice: Machine, tmp_path: Path) -> None:
    client = Client(ours.url)
    client.meet(alice)
    client.receive(sync("s1", [alice.share_room_key(BOB.user_id)]))
    exported = str(tmp_path / "keys.txt")
    asyncio.run(client.nio.export_keys(exported, "passphrase", count=10))
    client.store.close()

    other = Ours(f"sqlite:///{tmp_path}/other.db")
    client = Client(other.url)
    asyncio.run(client.nio.import_keys(exported, "passphrase"))
    client.receive(sync("s1", [], [alice.say("hello", 1)]))
    assert client.read == ["hello"]
    client.store.close()
    assert len(other.stored(InboundGroupSession, BOB)) == 1


def test_nios_older_configuration_class_will_do(memory_url: str) -> None:
    config: Any = ClientConfig(store=NioStore, store_sync_tokens=True, pickle_key=KEY)
    with pytest.warns(DeprecationWarning, match="AsyncClientConfig"):
        client = AsyncClient("https://example.org", BOB.user_id, BOB.device_id, memory_url, config)
    client.restore_login(BOB.user_id, BOB.device_id, "token")
    assert isinstance(client.store, NioStore)
    client.store.close()


def test_without_a_store_path_nio_asks_no_store() -> None:
    # The one silence that a store cannot break: nio does not construct it.
    client = AsyncClient("https://example.org", BOB.user_id, BOB.device_id, "", CONFIG)
    client.restore_login(BOB.user_id, BOB.device_id, "token")
    assert client.store is None
