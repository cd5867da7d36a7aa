"""To-device messages come in pages; keys are read before the timeline that needs them."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from aiohttp import web
from nio import SyncError, SyncResponse, UnknownToDeviceEvent

from client_pairs import ALICE, BOB, Person, people, say_in_new_sessions
from cryptostore import InboundGroupSession, OlmMessage, OlmSession, SyncToken
from small_homeserver import Request, SmallHomeserver


def is_further_page(request: Request) -> bool:
    return request.is_for("/sync") and request.user == BOB.user_id and "rooms" in request.filter


def syncs(server: SmallHomeserver) -> int:
    return len(server.asked("/sync", BOB.user_id))


async def known_to_each_other(alice: Person, bob: Person) -> None:
    await alice.say("first")
    await bob.round()


TEXTS = [str(number) for number in range(10)]


def test_keys_on_later_pages_are_read_before_the_timeline(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            await known_to_each_other(alice, bob)
            server.page_size = 3
            say_in_new_sessions(alice, TEXTS)
            before = syncs(server)
            response = await bob.client.sync()
            assert isinstance(response, SyncResponse)
            assert bob.read == ["first", *TEXTS]
            assert len(response.to_device_events) == len(TEXTS)
            # Three further pages, and the question whether there is another.
            assert bob.client.statistics.further_pages == 3
            assert syncs(server) - before == 5
            assert bob.stored(SyncToken) == [SyncToken(bob.client.next_batch)] == [SyncToken(response.next_batch)]
            assert len(bob.stored(InboundGroupSession)) == len(TEXTS) + 1
            await alice.say("last")
            await bob.client.sync()
            assert bob.read == ["first", *TEXTS, "last"]
            assert bob.stored(OlmMessage) == []
            assert bob.client.statistics.redelivered_events == bob.client.statistics.loop_reads == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("restarts", [(), (0,), (2,)])
def test_what_came_after_the_token_is_remembered_until_the_server_has_brought_it(
    memory_url: str, restarts: tuple[int, ...]
) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            await known_to_each_other(alice, bob)
            make_olm_sessions_old(bob)
            server.page_size = 3
            # A homeserver that keeps what it was told had come: with an older token all of it comes again.
            server.forgets_acknowledged = False
            say_in_new_sessions(alice, TEXTS)
            await bob.client.sync()
            later = len(TEXTS) - server.page_size
            assert len(bob.stored(OlmMessage)) == later
            # Without timeline there is nothing to hurry for: a page with each sync.
            redelivered = 0
            for number, brought in enumerate([3, 3, 1, 0]):
                if number in restarts:
                    redelivered += bob.client.statistics.redelivered_events
                    await bob.restart()
                await bob.client.sync()
                later -= brought
                assert len(bob.stored(OlmMessage)) == later
            assert redelivered + bob.client.statistics.redelivered_events == 7
            assert bob.client.statistics.further_pages == (0 if restarts else 3)
            assert bob.client.machine.wedged_devices == []

    asyncio.run(scenario())


def test_what_the_server_does_not_bring_again_is_forgotten(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            await known_to_each_other(alice, bob)
            server.page_size = 3
            say_in_new_sessions(alice, TEXTS)
            await bob.client.sync()
            assert len(bob.stored(OlmMessage)) == len(TEXTS) - server.page_size
            await bob.restart()
            await alice.say("last")
            await bob.client.sync()
            assert bob.stored(OlmMessage) == []

    asyncio.run(scenario())


def make_olm_sessions_old(bob: Person) -> None:
    """nio calls no session wedged that is younger than an hour."""
    (row,) = bob.stored(OlmSession)
    for session in bob.store.load_sessions():
        session.creation_time = session.creation_time.replace(year=2020)
        bob.store.save_session(row.sender_key, session)


def test_without_a_missing_key_nothing_is_asked_twice(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            await known_to_each_other(alice, bob)
            server.page_size = 3
            say_in_new_sessions(alice, TEXTS)
            for timeline in server.timeline.values():
                del timeline[-len(TEXTS) :]
            before = syncs(server)
            await bob.client.sync()
            assert syncs(server) - before == 1
            assert bob.client.statistics.further_pages == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("page", [1, 2, 3])
def test_a_crash_between_two_pages_loses_no_key(url: str, page: int) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            await known_to_each_other(alice, bob)
            server.page_size = 3
            say_in_new_sessions(alice, TEXTS)
            reached, pages = asyncio.Event(), list[Request]()

            def stop(request: Request) -> web.Response | None:
                if is_further_page(request):
                    pages.append(request)
                    if len(pages) == page:
                        # The homeserver was told, and forgets what it has sent.
                        reached.set()
                return None

            server.faults.append(stop)
            sync = asyncio.create_task(bob.client.sync())
            await reached.wait()
            await asyncio.sleep(0)
            sync.cancel()
            await asyncio.gather(sync, return_exceptions=True)
            server.faults.clear()
            await bob.come_back_after_a_crash()
            bob.read.clear()
            await bob.client.sync()
            assert bob.read == TEXTS
            assert bob.client.machine.wedged_devices == []

    asyncio.run(scenario())


def test_a_page_that_does_not_come_fails_the_sync_and_later_no_more(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            await known_to_each_other(alice, bob)
            server.page_size = 3
            token = bob.client.next_batch

            def refuse(request: Request) -> web.Response | None:
                if is_further_page(request):
                    return web.json_response({"errcode": "M_UNKNOWN", "error": "no"}, status=500)
                return None

            server.faults.append(refuse)
            say_in_new_sessions(alice, TEXTS)
            assert isinstance(await bob.client.sync(), SyncError)
            assert (bob.client.next_batch, bob.read) == (token, ["first"])
            server.faults.clear()
            await bob.client.sync()
            assert bob.read == ["first", *TEXTS]
            # A homeserver that never brings it must not stop the client for ever.
            server.faults.append(refuse)
            say_in_new_sessions(alice, [f"more {text}" for text in TEXTS])
            failed = 0
            while isinstance(await bob.client.sync(), SyncError):
                failed += 1
            assert failed == 5
            assert bob.read[-3:] == ["more 0", "more 1", "more 2"]

    asyncio.run(scenario())


def test_an_event_without_content_reaches_no_callback(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            received: list[Any] = []
            bob.client.add_to_device_callback(received.append, None)  # type: ignore[arg-type]  # all events, as nio allows
            server._send_to_device(ALICE.user_id, "m.anything", {BOB.user_id: {BOB.device_id: {}}})
            unknown = {"algorithm": "m.unknown", "sender_key": "c2VuZGVy", "ciphertext": {}}
            server._send_to_device(ALICE.user_id, "m.room.encrypted", {BOB.user_id: {BOB.device_id: unknown}})
            server._send_to_device(ALICE.user_id, "m.anything", {BOB.user_id: {BOB.device_id: {"key": "value"}}})
            await bob.client.sync()
            assert [type(event) for event in received] == [UnknownToDeviceEvent]

    asyncio.run(scenario())


def unreadable_by_any_session() -> str:
    """An Olm message in the right form, for which every session is tried in vain."""
    body = b"\x03\x0a\x20" + bytes(32) + b"\x10\x00\x22\x10" + bytes(16) + bytes(8)
    return base64.b64encode(body).decode().rstrip("=")


def test_the_session_that_read_last_is_used_after_a_restart(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            await alice.say("with the first session")
            await alice.client.keys_claim({BOB.user_id: [BOB.device_id]})
            say_in_new_sessions(alice, ["with the second session"])
            (device,) = bob.client.device_store.active_user_devices(ALICE.user_id)
            content = {
                "algorithm": "m.olm.v1.curve25519-aes-sha2",
                "sender_key": device.curve25519,
                "ciphertext": {
                    bob.client.machine.account.identity_keys["curve25519"]: {
                        "type": 1,
                        "body": unreadable_by_any_session(),
                    }
                },
            }
            server._send_to_device(ALICE.user_id, "m.room.encrypted", {BOB.user_id: {BOB.device_id: content}})
            await bob.client.sync()
            first, second = sorted(bob.stored(OlmSession), key=lambda row: row.created_at)
            assert second.last_used_at > first.last_used_at
            # The first was tried after the second.
            sessions = {session.id: session for session in bob.store.load_sessions()}
            assert sessions[first.session_id].use_time > sessions[second.session_id].use_time
            await bob.restart()
            used = bob.store.load_sessions().get(device.curve25519)
            assert used is not None
            assert used.id == second.session_id

    asyncio.run(scenario())
