"""Why a room key was not sent is said, kept, and quoted."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from aiohttp import web
from nio import MatrixRoom, MegolmEvent, RoomSendResponse

from client_pairs import ALICE, BOB, ROOM, Person, people
from clock import Clock
from cryptostore import Account, WithheldKey
from cryptostore.nio import bounds
from hostile_text import WORST, raw_in
from small_homeserver import HangUp, Request, SmallHomeserver

PHONE = (BOB.user_id, BOB.device_id)
WITHHELD = "m.room_key.withheld"


def told(server: SmallHomeserver) -> list[Any]:
    """What Alice told Bob's phone of keys that it does not get."""
    requests = server.asked(f"sendToDevice/{WITHHELD}", ALICE.user_id)
    return [request.body["messages"][BOB.user_id][BOB.device_id] for request in requests]


def curve25519(person: Person) -> str:
    return str(person.client.machine.account.identity_keys["curve25519"])


def session_ids(server: SmallHomeserver) -> list[str]:
    """The Megolm session of each message in the room, in their order."""
    contents = [event["content"] for _, event in server.timeline[ROOM]]
    return [content["session_id"] for content in contents if "session_id" in content]


def collect_unread(person: Person) -> list[tuple[MegolmEvent, str | None]]:
    """What the person's callback for messages that cannot be read sees, and with which code."""
    unread: list[tuple[MegolmEvent, str | None]] = []

    async def note(_room: MatrixRoom, event: Any) -> None:
        said = person.client.why_undecryptable(event)
        unread.append((event, said.code if said else None))

    person.client.add_event_callback(note, MegolmEvent)
    return unread


def says(server: SmallHomeserver, sender: str, content: Any) -> None:
    """Somebody sends Bob's phone a reason for a key that it does not get."""
    server._send_to_device(sender, WITHHELD, {BOB.user_id: {BOB.device_id: content}})


async def unreadable_message(server: SmallHomeserver, alice: Person) -> dict[str, Any]:
    """Alice sends a message whose key gets lost; returns what a reason for that names."""

    def lose_it(request: Request) -> web.Response | None:
        return web.json_response({}) if request.is_for("sendToDevice") else None

    server.faults.append(lose_it)
    await alice.say("cannot be read")
    server.faults.clear()
    return {
        "room_id": ROOM,
        "session_id": session_ids(server)[-1],
        "sender_key": curve25519(alice),
        "algorithm": "m.megolm.v1.aes-sha2",
        "code": "m.unauthorised",
        "reason": "You were not there.",
    }


def test_a_device_without_a_one_time_key_is_told_once_until_it_is_reached(url: str, clock: Clock) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            unread = collect_unread(bob)
            server.take_all_keys(PHONE)
            await alice.say("one")
            await alice.restart()
            await alice.client.sync()
            clock.passes(hours=1)
            alice.client.invalidate_outbound_session(ROOM)
            await alice.say("two")
            (content,) = told(server)
            assert content == {
                "algorithm": "m.megolm.v1.aes-sha2",
                "sender_key": curve25519(alice),
                "from_device": ALICE.device_id,
                "code": "m.no_olm",
                "reason": "Unable to establish a secure channel.",
            }
            await bob.round()
            assert [code for _, code in unread] == ["m.no_olm", "m.no_olm"]
            clock.passes(hours=1)
            await alice.say("three")
            await bob.round()
            await bob.client.flush()
            assert bob.read == ["three"]
            assert bob.stored(WithheldKey) == []
            assert bob.client.why_undecryptable(unread[0][0]) is None

    asyncio.run(scenario())


def test_a_blacklisted_device_is_told_once_for_each_room_key(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            unread = collect_unread(bob)
            alice.client.blacklist_device(alice.client.device_store[BOB.user_id][BOB.device_id])
            for text in ("one", "two"):
                await alice.say(text)
            await alice.restart()
            await alice.client.sync()
            await alice.say("three")
            assert [(content["code"], content["session_id"]) for content in told(server)] == [
                ("m.blacklisted", session_ids(server)[0])
            ]
            alice.client.invalidate_outbound_session(ROOM)
            await alice.say("four")
            assert [content["session_id"] for content in told(server)] == session_ids(server)[-2:]
            assert {(content["room_id"], content["sender_key"]) for content in told(server)} == {
                (ROOM, curve25519(alice))
            }
            await bob.round()
            assert [code for _, code in unread] == ["m.blacklisted"] * 4
            assert f"{ALICE.user_id} did not send the key of {unread[0][0].event_id}: m.blacklisted" in caplog.text
            await bob.restart()
            await bob.client.sync()
            said = bob.client.why_undecryptable(unread[0][0])
            assert said is not None
            assert (said.code, said.reason) == ("m.blacklisted", "The sender has blocked you.")
            assert bob.client.statistics.loop_reads == 0

    asyncio.run(scenario())


def test_a_device_that_is_reached_too_late_for_a_decision_is_told_that_it_is_not_verified(
    memory_url: str, clock: Clock
) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            server.take_all_keys(PHONE)
            for hour in range(3):
                clock.passes(hours=1)
                content = {"msgtype": "m.text", "body": f"at {hour}"}
                assert isinstance(await alice.client.room_send(ROOM, "m.room.message", content), RoomSendResponse)
                await bob.round()
            assert [content["code"] for content in told(server)] == ["m.no_olm", "m.unverified"]
            assert told(server)[-1]["session_id"] == session_ids(server)[0]

    asyncio.run(scenario())


def test_a_device_beyond_those_that_are_kept_is_told_that_it_is_not_verified(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, _bob):
            monkeypatch.setattr(bounds, "DEVICES", 1)
            tablet = Person(server, Account(BOB.user_id, "BOBTABLET"), "memory://")
            await tablet.start()
            await tablet.round()
            await alice.round()
            await alice.say("for the phone")
            (request,) = server.asked(f"sendToDevice/{WITHHELD}", ALICE.user_id)
            assert {device: content["code"] for device, content in request.body["messages"][BOB.user_id].items()} == {
                "BOBTABLET": "m.unverified"
            }
            await tablet.client.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("answer", [None, 400, 500])
def test_a_message_is_sent_although_nobody_can_be_told(memory_url: str, answer: int | None) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, _bob):

            def refuse(request: Request) -> web.StreamResponse | None:
                if not request.is_for(WITHHELD):
                    return None
                error = {"errcode": "M_UNKNOWN", "error": "no"}
                return HangUp() if answer is None else web.json_response(error, status=answer)

            server.faults.append(refuse)
            server.take_all_keys(PHONE)
            await alice.say("one")
            assert len(session_ids(server)) == 1
            # It was not told, so it is with the next key.
            server.faults.clear()
            # More than once where no answer came: the HTTP client itself tries again.
            tries = len(told(server))
            alice.client.invalidate_outbound_session(ROOM)
            await alice.say("two")
            assert [content["code"] for content in told(server)] == ["m.no_olm"] * (tries + 1)

    asyncio.run(scenario())


def test_an_unknown_code_is_kept_as_it_is_and_shown_escaped(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            unread = collect_unread(bob)
            names = await unreadable_message(server, alice)
            code = f"org.example.{WORST}".replace("\0", "")
            says(server, ALICE.user_id, names | {"code": code, "reason": WORST * 100})
            await bob.round()
            assert [said for _, said in unread] == [code]
            (row,) = bob.stored(WithheldKey)
            assert (row.code, len(row.reason)) == (code, 256)
            shown = [record.getMessage() for record in caplog.records if "did not send the key" in record.msg]
            assert len(shown) == 1
            assert "org.example." in shown[0]
            assert raw_in(shown[0]) == []

    caplog.set_level(logging.WARNING)
    asyncio.run(scenario())


def test_what_is_said_of_a_key_that_is_there_or_comes_later_is_not_kept(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            await alice.say("one")
            names = {
                "room_id": ROOM,
                "session_id": session_ids(server)[0],
                "sender_key": curve25519(alice),
                "code": "m.unavailable",
            }
            says(server, ALICE.user_id, names)
            await bob.round()
            await bob.restart()
            says(server, ALICE.user_id, names)
            await bob.round()
            assert bob.stored(WithheldKey) == []
            late = await unreadable_message_of_a_new_key(server, alice)
            says(server, ALICE.user_id, late)
            await bob.round()
            assert len(bob.stored(WithheldKey)) == 1
            machine = alice.client.machine
            session = machine.outbound_group_sessions[ROOM]
            messages = machine.encrypt_room_key(ROOM, session, [PHONE])
            server._send_to_device(ALICE.user_id, "m.room.encrypted", messages)
            await bob.round()
            assert bob.stored(WithheldKey) == []
            await alice.say("two")
            await bob.round()
            assert bob.read == ["one", "two"]

    asyncio.run(scenario())


async def unreadable_message_of_a_new_key(server: SmallHomeserver, alice: Person) -> dict[str, Any]:
    alice.client.invalidate_outbound_session(ROOM)
    return await unreadable_message(server, alice)


def test_what_somebody_else_says_of_a_key_is_not_quoted(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            unread = collect_unread(bob)
            names = await unreadable_message(server, alice)
            says(server, "@mallory:small", names | {"code": "m.blacklisted"})
            says(server, "@mallory:small", names | {"code": "m.no_olm"})
            await bob.round()
            assert [code for _, code in unread] == [None]
            says(server, ALICE.user_id, names)
            says(server, "@mallory:small", names | {"code": "m.unavailable"})
            await bob.round()
            said = bob.client.why_undecryptable(unread[0][0])
            assert said is not None
            assert said.code == "m.unauthorised"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "change",
    [
        {"code": None},
        {"code": 5},
        {"room_id": None},
        {"room_id": "!" * 300},
        {"session_id": ["x"]},
        {"sender_key": ""},
        {"sender_key": "\ud800"},
    ],
)
def test_a_malformed_reason_is_left_out_alone(memory_url: str, change: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            names = await unreadable_message(server, alice)
            wrong = {name: value for name, value in (names | change).items() if value is not None}
            says(server, ALICE.user_id, wrong)
            says(server, ALICE.user_id, "no content")
            await bob.round()
            assert bob.stored(WithheldKey) == []
            says(server, ALICE.user_id, {**names, "reason": 5})
            await bob.round()
            assert [(row.code, row.reason) for row in bob.stored(WithheldKey)] == [("m.unauthorised", "")]

    asyncio.run(scenario())


def test_so_many_reasons_are_kept_and_no_more(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(bounds, "WITHHELD_KEYS", 3)
        monkeypatch.setattr(bounds, "WITHHELD_SENDERS", 2)
        async with people(url) as (server, _alice, bob):
            content = {"room_id": ROOM, "sender_key": "a key", "code": "m.unavailable"}
            for number in range(5):
                says(server, ALICE.user_id, content | {"session_id": str(number)})
            for number in range(3):
                says(server, f"@{number}:small", content | {"session_id": "4"})
            await bob.round()
            kept = [("2", ALICE.user_id), ("3", ALICE.user_id), ("4", "@0:small"), ("4", ALICE.user_id)]
            assert sorted((row.session_id, row.user_id) for row in bob.stored(WithheldKey)) == kept
            # The oldest is known after a restart, too.
            await bob.restart()
            says(server, ALICE.user_id, content | {"session_id": "5"})
            await bob.round()
            assert sorted({row.session_id for row in bob.stored(WithheldKey)}) == ["3", "4", "5"]

    asyncio.run(scenario())


def test_the_same_reason_again_is_not_written_again(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            names = await unreadable_message(server, alice)
            says(server, ALICE.user_id, names)
            await bob.round()
            (first,) = bob.stored(WithheldKey)
            says(server, ALICE.user_id, names)
            await bob.round()
            assert bob.stored(WithheldKey) == [first]
            says(server, ALICE.user_id, names | {"code": "m.unavailable"})
            await bob.round()
            assert [row.code for row in bob.stored(WithheldKey)] == ["m.unavailable"]

    asyncio.run(scenario())
