"""A room's key: who has it, who must not, and what becomes of it in a restart."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import ClientError, web
from nio import GroupEncryptionError, MegolmEvent, RoomSendResponse
from nio.crypto import OlmDevice
from nio.exceptions import OlmUnverifiedDeviceError

from client_pairs import ALICE, BOB, ROOM, Person, people, session_ids, while_down
from cryptostore import Account, OutboundGroupSession
from small_homeserver import HangUp, Request


def device_of_bob(alice: Person) -> OlmDevice:
    devices: list[OlmDevice] = list(alice.client.device_store.active_user_devices(BOB.user_id))
    return devices[0]


@pytest.mark.parametrize("ending", ["no answer", "cancelled"])
def test_a_key_that_somebody_may_have_is_not_used_once_they_must_not_have_it(memory_url: str, ending: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            reached = asyncio.Event()

            def deliver_without_an_answer(request: Request) -> web.StreamResponse | None:
                if request.is_for("sendToDevice") and request.user == ALICE.user_id:
                    server._send_to_device(ALICE.user_id, "m.room.encrypted", request.body["messages"])
                    reached.set()
                    return HangUp()
                return None

            server.faults.append(deliver_without_an_answer)
            send = asyncio.create_task(alice.say("never sent"))
            await reached.wait()
            if ending == "cancelled":
                send.cancel()
            with pytest.raises((ClientError, asyncio.CancelledError)):
                await send
            server.faults.clear()
            assert alice.client.sharing_session == {}
            alice.client.blacklist_device(device_of_bob(alice))
            await alice.say("not for Bob")
            await bob.round()
            assert bob.read == []

    asyncio.run(scenario())


def test_many_sends_at_once_share_one_key_and_rotate_it_when_it_is_used_up(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            texts = [str(number) for number in range(130)]
            await asyncio.gather(*map(alice.say, texts))
            await bob.round()
            assert sorted(bob.read) == sorted(texts)
            used = session_ids(server)
            assert sorted(used.count(session) for session in set(used)) == [30, 100]
            assert len(server.asked("sendToDevice")) == 2
            assert bob.client.statistics.replays == 0

    asyncio.run(scenario())


def test_a_send_that_waits_for_another_shares_the_key_itself_if_that_one_failed(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            refused: list[Request] = []

            def refuse_once(request: Request) -> web.Response | None:
                if request.is_for("sendToDevice") and not refused:
                    refused.append(request)
                    return web.json_response({"errcode": "M_UNKNOWN", "error": "no"}, status=500)
                return None

            server.faults.append(refuse_once)
            outcomes = await asyncio.gather(alice.say("first"), alice.say("second"), return_exceptions=True)
            assert isinstance(outcomes[0], GroupEncryptionError)
            assert isinstance(outcomes[1], str)
            await bob.round()
            assert bob.read == ["second"]

    asyncio.run(scenario())


def test_the_number_of_messages_for_one_key_counts_over_restarts(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            await alice.say("1")
            await while_down(alice, message_count=lambda _: 99)
            await alice.say("100")
            assert alice.client.statistics.adopted_sessions == 1
            await alice.say("101")
            assert [row.message_count for row in alice.stored(OutboundGroupSession)] == [1]
            first, hundredth, next_one = session_ids(server)
            assert first == hundredth != next_one
            await bob.round()
            assert bob.read == ["1", "100", "101"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("field", "change"),
    [("message_count", lambda _: 100), ("created_at", lambda at: at - timedelta(days=7))],
)
def test_a_key_that_is_used_up_or_too_old_is_not_used_after_a_restart(url: str, field: str, change: Any) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            await alice.say("one")
            await while_down(alice, **{field: change})
            await alice.say("two")
            assert (alice.client.statistics.adopted_sessions, alice.client.statistics.dropped_sessions) == (0, 1)
            assert len(set(session_ids(server))) == 2
            await bob.round()
            assert bob.read == ["one", "two"]

    asyncio.run(scenario())


def test_a_key_younger_than_a_week_is_used_after_a_restart(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, _bob):
            await alice.say("one")
            await while_down(alice, created_at=lambda at: at - timedelta(days=6))
            await alice.say("two")
            assert len(set(session_ids(server))) == 1

    asyncio.run(scenario())


def test_a_device_that_appeared_while_we_were_down_reads_what_comes(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            await alice.say("one")
            await alice.client.close()
            tablet = Person(server, Account(BOB.user_id, "BOBTABLET"), "memory://")
            await tablet.start()
            await tablet.round()
            alice.client = alice._make()
            await alice.start()
            await alice.client.sync()
            await alice.say("two")
            assert alice.client.statistics.adopted_sessions == 0
            for person in (bob, tablet):
                await person.round()
            assert (bob.read, tablet.read) == (["one", "two"], ["two"])
            await tablet.client.close()

    asyncio.run(scenario())


def test_a_device_that_is_not_ignored_any_more_gets_nothing_after_a_restart(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, _bob):
            await alice.say("one")
            await alice.restart()
            await asyncio.to_thread(alice.store.load_device_keys().prefetch, [BOB.user_id])
            alice.client.unignore_device(device_of_bob(alice))
            await alice.client.sync()
            asked = len(server.asked("sendToDevice"))
            with pytest.raises(OlmUnverifiedDeviceError):
                await alice.client.room_send(ROOM, "m.room.message", {"msgtype": "m.text", "body": "two"})
            assert len(server.asked("sendToDevice")) == asked
            assert len(session_ids(server)) == 1
            assert alice.client.sharing_session == {}

    asyncio.run(scenario())


def test_a_device_that_is_verified_now_is_one_that_has_the_key(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            alice.client.verify_device(device_of_bob(alice))
            content = {"msgtype": "m.text", "body": "one"}
            assert isinstance(await alice.client.room_send(ROOM, "m.room.message", content), RoomSendResponse)
            await alice.restart()
            await alice.client.sync()
            content = {"msgtype": "m.text", "body": "two"}
            assert isinstance(await alice.client.room_send(ROOM, "m.room.message", content), RoomSendResponse)
            assert alice.client.statistics.adopted_sessions == 1
            assert len(set(session_ids(server))) == 1
            alice.client.blacklist_device(device_of_bob(alice))
            await alice.client.flush()
            assert alice.stored(OutboundGroupSession) == []
            await alice.come_back_after_a_crash()
            await alice.client.sync()
            await alice.say("three")
            await bob.round()
            assert bob.read == ["one", "two"]
            assert len(set(session_ids(server))) == 2

    asyncio.run(scenario())


def _unsigned(key: dict[str, Any], _sign: Any) -> Any:
    return {name: value for name, value in key.items() if name != "signatures"}


def _signed_garbage(_key: dict[str, Any], sign: Any) -> Any:
    garbage: dict[str, Any] = {"key": "!"}
    return garbage | {"signatures": {BOB.user_id: {f"ed25519:{BOB.device_id}": sign(garbage)}}}


def _odd_signature(key: dict[str, Any], _sign: Any) -> Any:
    return key | {"signatures": {BOB.user_id: {f"ed25519:{BOB.device_id}": "!"}}}


@pytest.mark.parametrize(
    "spoil",
    [
        _unsigned,
        _signed_garbage,
        _odd_signature,
        lambda key, _: key | {"signatures": "none"},
        lambda key, _: key["key"],
        lambda *_: [],
        lambda *_: None,
        lambda *_: {},
    ],
)
def test_a_useless_one_time_key_of_one_device_keeps_no_other_from_reading(memory_url: str, spoil: Any) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            tablet = Person(server, Account(BOB.user_id, "BOBTABLET"), "memory://")
            await tablet.start()
            await tablet.round()
            await alice.round()
            keys = server.one_time_keys[BOB.user_id, BOB.device_id]
            for name in keys:
                keys[name] = spoil(dict(keys[name]), bob.client.machine.sign_json)
            await alice.say("for whoever can read it")
            session = alice.client.machine.outbound_group_sessions[ROOM]
            assert session.users_shared_with == {(BOB.user_id, "BOBTABLET")}
            assert (BOB.user_id, BOB.device_id) in session.users_ignored
            await tablet.round()
            assert tablet.read == ["for whoever can read it"]
            await tablet.client.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "change",
    [
        {"keys": {}},
        {"keys": {"ed25519:EVIL": "!", "curve25519:EVIL": "!"}},
        {
            "keys": {"ed25519:EVIL": "!", "curve25519:EVIL": "!"},
            "signatures": {BOB.user_id: {"ed25519:EVIL": "!"}},
        },
        # Neither 32 bytes; vodozemac raises for 31, and panics for 33.
        {
            "keys": {"ed25519:EVIL": "A" * 42, "curve25519:EVIL": "A" * 43},
            "signatures": {BOB.user_id: {"ed25519:EVIL": "A" * 86}},
        },
        {
            "keys": {"ed25519:EVIL": "A" * 44, "curve25519:EVIL": "A" * 43},
            "signatures": {BOB.user_id: {"ed25519:EVIL": "A" * 86}},
        },
        {"keys": {"ed25519:EVIL": 5, "curve25519:EVIL": 6}},
        {"keys": "none"},
        {"signatures": "none"},
        {"signatures": {BOB.user_id: "none"}},
        {"unsigned": "none"},
        {"unsigned": {"device_display_name": 5}},
        {"user_id": None},
        {"device_id": None},
        {"algorithms": None},
    ],
)
def test_malformed_keys_of_one_device_keep_no_other_from_being_known(memory_url: str, change: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            good = server.device_keys[BOB.user_id, BOB.device_id]
            evil = {**good, "device_id": "EVIL", **change}
            server.device_keys[BOB.user_id, "EVIL"] = {name: value for name, value in evil.items() if value is not None}
            tablet = Person(server, Account(BOB.user_id, "BOBTABLET"), "memory://")
            await tablet.start()
            await tablet.round()
            await alice.round()
            assert {device.id for device in alice.client.device_store.active_user_devices(BOB.user_id)} == {
                BOB.device_id,
                "BOBTABLET",
            }
            assert alice.client.users_for_key_query == set()
            await alice.say("for both")
            for person in (bob, tablet):
                await person.round()
                assert person.read == ["for both"]
            await tablet.client.close()

    asyncio.run(scenario())


def test_an_event_that_nobody_can_read_is_no_reason_to_forget_a_key(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            await alice.say("one")
            unread: list[Any] = []
            bob.client.add_event_callback(lambda _room, event: unread.append(event), MegolmEvent)
            _position, event = server.timeline[ROOM][-1]
            for ciphertext in ("", "!", "AAAA", "AwgA" + 200 * "A"):
                content = event["content"] | {"ciphertext": ciphertext}
                odd = event | {"event_id": f"$odd{len(ciphertext)}", "content": content}
                server.timeline[ROOM].append((server._advance(), odd))
            await alice.say("two")
            await bob.round()
            assert bob.read == ["one", "two"]
            assert len(unread) == 4

    asyncio.run(scenario())


def test_a_room_that_was_encrypted_stays_so_whatever_the_server_says_after_a_restart(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            del server.state[ROOM]["m.room.encryption", ""]
            await alice.restart()
            await alice.client.sync()
            assert alice.client.rooms[ROOM].encrypted
            await alice.say("still a secret")
            assert server.timeline[ROOM][-1][1]["type"] == "m.room.encrypted"
            await bob.round()
            assert bob.read == ["still a secret"]

    asyncio.run(scenario())
