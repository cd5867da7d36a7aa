"""One-time keys that the homeserver may have: after an import none is offered again, and each can still be used."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Final

import pytest
import vodozemac
from nio import RoomKeyEvent
from nio.crypto import InboundSession, OlmAccount, OutboundSession
from nio.store import SqliteStore

from cryptostore.nio import NioStore, ProductionMatrixClient
from cryptostore.nio.importing import one_time_keys
from nio_sources import ALICE, KEY, ROOM, Client, edited, import_all, reasons
from raw_devices import RawDevice
from small_homeserver import small_homeserver

LIBOLM: Final[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "nio/libolm_pickles.json").read_text())
FROM_LIBOLM: Final[dict[str, Any]] = LIBOLM["account_with_keys"]
LIBOLM_KEY: Final[str] = LIBOLM["pickle_key"]


@pytest.fixture
def libolms(alice: Client) -> Client:
    """A client whose account was made by libolm, with five published one-time keys and three that were not."""
    with edited(alice.path) as connection:
        connection.execute("UPDATE accounts SET account = ?, shared = 1", (FROM_LIBOLM["pickle"],))
    return alice


def imported(url: str, pickle_key: str = KEY) -> OlmAccount:
    store = NioStore(ALICE.user_id, ALICE.device_id, url, pickle_key)
    account = store.load_account()
    store.close()
    assert account is not None
    return account


def opens(account: OlmAccount, public_key: str) -> bool:
    """Whether somebody who claimed this key reaches the account."""
    peer = OlmAccount()
    message = OutboundSession(peer, account.identity_keys["curve25519"], public_key).encrypt("room key")
    try:
        return InboundSession(account, message, peer.identity_keys["curve25519"]).decrypt(message) != ""
    except vodozemac.SessionCreationException:
        return False


def keys_of(account: OlmAccount) -> dict[str, str]:
    return account.one_time_keys["curve25519"]


def test_no_key_of_libolms_gives_its_place_to_the_next_one(url: str, libolms: Client) -> None:
    assert not import_all(libolms.path, url, LIBOLM_KEY)
    account = imported(url, LIBOLM_KEY)
    account.generate_one_time_keys(50)
    new = list(keys_of(account).values())
    old = [*FROM_LIBOLM["published"].values(), *FROM_LIBOLM["unpublished"].values()]
    assert len(set(new + old)) == 58
    assert [key for key in old + new if not opens(account, key)] == []


def test_no_key_of_libolms_is_offered_under_another_number(memory_url: str, libolms: Client) -> None:
    assert not import_all(libolms.path, memory_url, LIBOLM_KEY)
    account = imported(memory_url, LIBOLM_KEY)
    assert keys_of(account) == {}
    assert account.shared


def test_an_account_that_nio_has_moved_to_vodozemac_keeps_its_last_key(memory_url: str, libolms: Client) -> None:
    # A later nio opened the file and saved the account, and did not make a key yet.
    libolms.close()
    later = SqliteStore(ALICE.user_id, ALICE.device_id, str(libolms.path.parent), LIBOLM_KEY, libolms.path.name)
    moved = later.load_account()
    assert moved is not None
    later.save_account(moved)
    later.database.close()
    assert not import_all(libolms.path, memory_url, LIBOLM_KEY)
    account = imported(memory_url, LIBOLM_KEY)
    account.generate_one_time_keys(1)
    old = [*FROM_LIBOLM["published"].values(), *FROM_LIBOLM["unpublished"].values()]
    assert [key for key in old if not opens(account, key)] == []


def test_keys_that_an_upload_without_an_answer_left_are_not_offered_again(memory_url: str, alice: Client) -> None:
    account = alice.store.load_account()
    assert account is not None
    account.generate_one_time_keys(3)
    offered = list(keys_of(account).values())
    alice.store.save_account(account)
    assert not import_all(alice.path, memory_url)
    account = imported(memory_url)
    assert keys_of(account) == {}
    account.generate_one_time_keys(3)
    assert not set(offered) & set(keys_of(account).values())
    assert all(opens(account, key) for key in offered)


@pytest.mark.parametrize("content", [{}, {"one_time_keys": 5}, {"one_time_keys": {"private_keys": {"x": 1}}}, []])
def test_an_unknown_form_is_named_and_holds_nothing_up(
    memory_url: str, libolms: Client, monkeypatch: pytest.MonkeyPatch, content: Any
) -> None:
    class Json:
        loads = staticmethod(lambda _text: content)

    # No vodozemac writes such a form yet.
    monkeypatch.setattr(one_time_keys, "json", Json)
    findings = import_all(libolms.path, memory_url, LIBOLM_KEY)
    (reason,) = reasons(findings, "account")
    assert "unknown form" in reason
    assert keys_of(imported(memory_url, LIBOLM_KEY)) == {}


def test_every_key_on_the_homeserver_can_be_used_after_the_move(memory_url: str, libolms: Client) -> None:
    """The homeserver has all of libolm's keys, also those whose upload had no answer, and gets new ones."""
    phone = (ALICE.user_id, ALICE.device_id)
    import_all(libolms.path, memory_url, LIBOLM_KEY)
    identity = imported(memory_url, LIBOLM_KEY).identity_keys
    offered = FROM_LIBOLM["published"] | FROM_LIBOLM["unpublished"]

    async def scenario() -> None:
        async with small_homeserver() as server:
            server.make_room(ROOM, ALICE.user_id)
            server.tokens["token"] = phone
            keys = {f"{name}:{ALICE.device_id}": key for name, key in identity.items()}
            server.device_keys[phone] = {
                "user_id": ALICE.user_id,
                "device_id": ALICE.device_id,
                "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
                "keys": keys,
                "signatures": {},
            }
            server.one_time_keys[phone] = {
                f"signed_curve25519:{key_id}": {"key": key} for key_id, key in offered.items()
            }
            async with ProductionMatrixClient(
                server.url, *phone, store=memory_url, pickle_key=LIBOLM_KEY, env_file=None
            ) as client:
                client.restore_login(*phone, "token")
                await client.sync()
                await client.keys_upload()
                claimed = dict(server.one_time_keys[phone])
                assert len({key["key"] for key in claimed.values()}) == 50
                room_keys: list[Any] = []
                client.add_to_device_callback(room_keys.append, RoomKeyEvent)
                for number, (key_id, key) in enumerate(claimed.items()):
                    device = RawDevice("@writer:small", f"DEVICE{number}")
                    device.begin(server.device_keys[phone], {key_id: key})
                    content = {ALICE.user_id: {ALICE.device_id: device.room_key(ROOM)}}
                    server._send_to_device(device.user, "m.room.encrypted", content)
                await client.sync()
                assert len(room_keys) == 50

    asyncio.run(scenario())
