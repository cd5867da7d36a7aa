"""Whose messages are: what is told of the device that sent each, and which are not decrypted for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from nio import MatrixRoom, MegolmEvent, RoomMessagesResponse, RoomMessageText
from nio.crypto import InboundGroupSession

from client_pairs import ALICE, ROOM, Person, away_for_messages, people
from cross_signed import CrossSigned
from cryptostore import BackendUnavailable, SenderDevice
from cryptostore.nio import SenderTrust
from cryptostore.nio.provenance import note_origin
from small_homeserver import Device, Request, SmallHomeserver

PHONE = (ALICE.user_id, ALICE.device_id)


def _no_keys(status: int, _device: Device, request: Request) -> web.StreamResponse | None:
    content = {"errcode": "M_UNKNOWN", "retry_after_ms": 20}
    return web.json_response(content, status=status) if request.parts == ["keys", "query"] else None


class Reader:
    """Bob, who reads what Alice writes."""

    def __init__(self, server: SmallHomeserver, alice: Person, bob: Person) -> None:
        self.server, self.alice, self.bob = server, alice, bob
        self.crossed = CrossSigned(server)
        self.events: list[Any] = []
        self.listen()

    def listen(self) -> None:
        """Note what Bob's callbacks see."""

        async def note(_room: MatrixRoom, event: Any) -> None:
            self.events.append(event)

        for kind in (RoomMessageText, MegolmEvent):
            self.bob.client.add_event_callback(note, kind)

    async def reads(self, text: str) -> SenderTrust:
        """Alice says something. Returns what Bob is told of her device."""
        await self.alice.say(text)
        await self.bob.round()
        assert self.bob.client.statistics.loop_reads == 0
        return self.bob.client.sender_trust(self.events[-1])

    def trust(self) -> SenderTrust:
        """What is told now of the event that came last."""
        return self.bob.client.sender_trust(self.events[-1])

    def session(self) -> InboundGroupSession:
        """The Megolm session of the event that came last."""
        event = self.events[-1]
        session = self.bob.client.machine.inbound_group_store.get(ROOM, event.sender_key, event.session_id)
        assert session is not None
        return session

    async def learn(self) -> None:
        """What changed of Alice's devices is known."""
        await self.alice.round()
        await self.bob.round()

    def identity(self) -> Any:
        """Alice's, as Bob knows it."""
        return self.bob.store.identities.of(ALICE.user_id)


@asynccontextmanager
async def reader(url: str, **options: Any) -> AsyncIterator[Reader]:
    async with people(url, **options) as (server, alice, bob):
        yield Reader(server, alice, bob)


def test_what_is_told_of_a_sender_follows_what_is_known(url: str) -> None:
    async def scenario() -> None:
        async with reader(url) as bob:
            assert await bob.reads("nothing is signed") == "unsigned"
            bob.crossed.make_for(PHONE)
            await bob.learn()
            assert bob.trust() == "signed"
            assert await bob.reads("signed") == "signed"
            assert bob.bob.store.identities.set_verified(ALICE.user_id, bob.identity().master_key)
            assert bob.trust() == "verified"
            await bob.bob.restart()
            bob.listen()
            await bob.bob.client.sync()
            assert await bob.reads("after a restart") == "verified"
            bob.crossed.make(ALICE.user_id)
            await bob.learn()
            assert bob.trust() == "unsigned"
            bob.crossed.sign(PHONE)
            await bob.learn()
            assert bob.trust() == "changed"
            assert bob.bob.client.accept_identity(ALICE.user_id)
            assert bob.trust() == "signed"

    asyncio.run(scenario())


def test_what_the_program_decided_about_a_device_counts(url: str) -> None:
    async def scenario() -> None:
        async with reader(url) as bob:
            bob.crossed.make_for(PHONE)
            await bob.learn()
            assert await bob.reads("one") == "signed"
            (device,) = bob.bob.client.device_store.active_user_devices(ALICE.user_id)
            bob.bob.client.verify_device(device)
            assert bob.trust() == "verified"
            bob.bob.client.blacklist_device(device)
            assert bob.trust() == "unsigned"

    asyncio.run(scenario())


def test_own_messages_those_in_the_clear_and_unreadable_ones_are_told_apart(memory_url: str) -> None:
    async def scenario() -> None:
        async with reader(memory_url) as bob:
            await bob.bob.say("from this device")
            await bob.bob.round()
            assert bob.trust() == "verified"
            plain = {"type": "m.room.message", "content": {"msgtype": "m.text", "body": "in the clear"}}
            bob.server._say(PHONE, ROOM, plain["type"], "1", plain["content"])  # type: ignore[arg-type]
            await bob.bob.round()
            assert bob.events[-1].body == "in the clear"
            assert bob.trust() == "unencrypted"
            event = next(each for _, each in bob.server.timeline[ROOM] if each["type"] == "m.room.encrypted")
            lost = MegolmEvent.from_dict(
                event | {"content": event["content"] | {"session_id": 43 * "A"}, "room_id": ROOM}
            )
            assert bob.bob.client.sender_trust(lost) == "unknown"

    asyncio.run(scenario())


def test_a_session_proves_nothing_for_another_sender_or_when_it_came_by_others(memory_url: str) -> None:
    async def scenario() -> None:
        async with reader(memory_url) as bob:
            bob.crossed.make_for(PHONE)
            await bob.learn()
            assert await bob.reads("one") == "signed"
            foreign = replace(bob.events[-1])
            foreign.sender = "@mallory:small"
            for name in ("decrypted", "sender_key", "session_id", "room_id"):
                setattr(foreign, name, getattr(bob.events[-1], name))
            assert bob.bob.client.sender_trust(foreign) == "unknown"
            session = bob.session()
            claimed, session.ed25519 = session.ed25519, 43 * "A"
            assert bob.trust() == "unknown"
            session.ed25519 = claimed
            session.forwarding_chain.append(bob.events[-1].sender_key)
            assert bob.trust() == "indirect"
            session.forwarding_chain.clear()
            note_origin(session, from_backup=True)
            assert bob.trust() == "indirect"

    asyncio.run(scenario())


@pytest.mark.parametrize("accept", ["all", "signed"])
def test_a_device_that_is_gone_proves_its_owner_by_what_it_sent(url: str, accept: str) -> None:
    async def scenario() -> None:
        async with reader(url, accept=accept) as bob:
            bob.crossed.make_for(PHONE)
            await bob.learn()
            # Bob is away when a device comes, writes and goes.
            await bob.bob.client.close()
            laptop = Person(bob.server, replace(ALICE, device_id="ALICELAPTOP"), url)
            await laptop.start()
            await laptop.round()
            bob.crossed.sign((ALICE.user_id, "ALICELAPTOP"))
            await laptop.round()
            await laptop.say("from a device that is gone")
            await laptop.client.close()
            bob.server.delete_device((ALICE.user_id, "ALICELAPTOP"))
            bob.bob.client = bob.bob._make()
            bob.listen()
            await bob.bob.start()
            await bob.bob.round()
            assert bob.bob.read == ["from a device that is gone"]
            assert bob.trust() == "signed"
            await bob.bob.restart()
            event = next(each for _, each in bob.server.timeline[ROOM] if each["type"] == "m.room.encrypted")
            response = RoomMessagesResponse(ROOM, [MegolmEvent.from_dict(event | {"room_id": ROOM})], "start")
            await bob.bob.client.receive_response(response)
            assert bob.bob.client.sender_trust(response.chunk[0]) == "signed"
            assert bob.bob.client.statistics.loop_reads == 0
            assert len(bob.bob.stored(SenderDevice)) == 1
            # With another identity the signature counts no more.
            bob.crossed.make(ALICE.user_id)
            await bob.bob.round()
            assert bob.bob.client.sender_trust(response.chunk[0]) == "unknown"

    asyncio.run(scenario())


@pytest.mark.parametrize("accept", ["signed", "verified"])
def test_messages_of_devices_that_are_not_accepted_are_not_decrypted_before_they_are(
    url: str, accept: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with reader(url, accept=accept) as bob:
            assert await bob.reads("one") == "unsigned"
            (refused,) = bob.events
            assert isinstance(refused, MegolmEvent)
            assert bob.bob.client.why_undecryptable(refused) is None
            assert f"did not decrypt {refused.event_id}" in caplog.text
            bob.crossed.make_for(PHONE)
            await bob.learn()
            if accept == "verified":
                assert await bob.reads("two") == "signed"
                assert bob.bob.read == []
                assert bob.bob.store.identities.set_verified(ALICE.user_id, bob.identity().master_key)
            assert await bob.reads("three") == accept
            plain: Any = bob.bob.client.decrypt_event(refused)
            assert plain.body == "one"
            assert bob.bob.read == ["three"]

    asyncio.run(scenario())


@pytest.mark.parametrize(("accept", "is_read"), [("signed", True), ("verified", False)])
def test_a_key_from_the_accounts_backup_reads_history_but_verifies_nobody(
    memory_url: str, accept: str, is_read: bool
) -> None:
    async def scenario() -> None:
        async with reader(memory_url, accept=accept) as bob:
            await bob.reads("one")
            note_origin(bob.session(), from_backup=True)
            assert (bob.bob.client.machine.decrypt_message(bob.events[-1]) is not None) == is_read

    asyncio.run(scenario())


@pytest.mark.parametrize(("accept", "is_read"), [("signed", True), ("verified", False)])
def test_a_key_from_a_file_reads_history_but_verifies_nobody(
    memory_url: str, tmp_path: Path, accept: str, is_read: bool
) -> None:
    async def scenario() -> None:
        async with reader(memory_url, accept=accept) as bob:
            bob.crossed.make_for(PHONE)
            await bob.learn()
            assert bob.bob.store.identities.set_verified(ALICE.user_id, bob.identity().master_key)
            await bob.alice.say("one")
            await bob.alice.client.export_keys(str(tmp_path / "keys"), "passphrase", count=1)
            await bob.bob.client.import_keys(str(tmp_path / "keys"), "passphrase")
            sent = next(each for _, each in bob.server.timeline[ROOM] if each["type"] == "m.room.encrypted")
            event: Any = MegolmEvent.from_dict(sent | {"room_id": ROOM})
            assert bob.bob.client.sender_trust(event) == "indirect"
            assert (bob.bob.client.machine.decrypt_message(event) is not None) == is_read
            # The sender's own key takes its place.
            await bob.bob.round()
            assert bob.trust() == "verified"
            assert bob.bob.read == ["one"]

    asyncio.run(scenario())


def test_a_session_from_a_backup_verifies_nobody(memory_url: str) -> None:
    async def scenario() -> None:
        async with reader(memory_url) as bob:
            await bob.reads("one")
            (device,) = bob.bob.client.device_store.active_user_devices(ALICE.user_id)
            bob.bob.client.verify_device(device)
            await bob.reads("two")
            session = bob.session()
            note_origin(session, from_backup=True)
            await bob.reads("three")
            # A backup may claim any key; of a verified device nio refuses those that are not its own.
            session.ed25519 = "another"
            await bob.reads("four")
            assert [(event.body, event.verified) for event in bob.events] == [
                ("one", False),
                ("two", True),
                ("three", False),
                ("four", False),
            ]
            assert session.forwarding_chain == []

    asyncio.run(scenario())


def test_a_message_that_is_refused_before_its_senders_keys_were_asked_for_is_read_afterwards(url: str) -> None:
    async def scenario() -> None:
        async with reader(url, accept="signed") as bob:
            bob.crossed.make_for(PHONE)
            await bob.alice.say("signed a moment ago")
            await bob.bob.client.sync()
            assert [getattr(event, "body", None) for event in bob.events] == [None, "signed a moment ago"]
            assert bob.trust() == "signed"
            # Nothing is told twice.
            await bob.bob.round()
            assert len(bob.events) == 2

    asyncio.run(scenario())


def test_a_message_that_stays_refused_is_told_once(url: str) -> None:
    async def scenario() -> None:
        async with reader(url, accept="signed") as bob:
            bob.crossed.make(ALICE.user_id)
            await bob.alice.say("not signed")
            for _ in range(3):
                await bob.bob.round()
            assert [type(event) for event in bob.events] == [MegolmEvent]

    asyncio.run(scenario())


@pytest.mark.parametrize("status", [500, 429])
def test_a_refused_message_waits_until_the_homeserver_answers(memory_url: str, status: int) -> None:
    no_keys = partial(_no_keys, status)

    async def scenario() -> None:
        async with reader(memory_url, accept="signed", homeserver_deadline=2.0) as bob:
            bob.crossed.make_for(PHONE)
            await bob.alice.say("signed a moment ago")
            bob.server.extensions.append(no_keys)
            await bob.bob.client.sync()
            assert len(bob.events) == 1
            bob.server.extensions.remove(no_keys)
            await bob.bob.client.sync()
            assert bob.events[-1].body == "signed a moment ago"

    asyncio.run(scenario())


def test_a_callback_that_fails_for_a_refused_message_keeps_none_of_the_others_up(memory_url: str) -> None:
    async def fail(_room: MatrixRoom, event: Any) -> None:
        if event.body == "one":
            raise ZeroDivisionError

    async def scenario() -> None:
        async with reader(memory_url, accept="signed") as bob:
            bob.bob.client.add_event_callback(fail, RoomMessageText)
            bob.crossed.make_for(PHONE)
            for text in ("one", "two", "three"):
                await bob.alice.say(text)
            with pytest.raises(ZeroDivisionError):
                await bob.bob.client.sync()
            assert bob.bob.read == ["one", "two", "three"]

    asyncio.run(scenario())


def test_a_callbacks_error_is_logged_where_another_one_hides_it(
    memory_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_room: MatrixRoom, event: Any) -> None:
        raise ZeroDivisionError if event.body == "one" else BackendUnavailable("away")

    async def scenario() -> None:
        async with reader(memory_url, accept="signed") as bob:
            bob.bob.client.add_event_callback(fail, RoomMessageText)
            bob.crossed.make_for(PHONE)
            for text in ("one", "two"):
                await bob.alice.say(text)
            with pytest.raises(BackendUnavailable):
                await bob.bob.client.sync()

    asyncio.run(scenario())
    [logged] = [each for each in caplog.records if "a callback raised for a message" in each.message]
    assert logged.exc_info is not None
    assert logged.exc_info[0] is ZeroDivisionError


def test_refused_messages_wait_for_the_database(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with reader(memory_url, accept="signed") as bob:
            bob.crossed.make_for(PHONE)
            await bob.alice.say("signed a moment ago")
            away_for_messages(monkeypatch, {2})
            with pytest.raises(BackendUnavailable):
                await bob.bob.client.sync()
            assert bob.bob.read == []
            await bob.bob.client.sync()
            assert bob.bob.read == ["signed a moment ago"]

    asyncio.run(scenario())
