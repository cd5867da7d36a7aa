"""One-time keys are offered once, outbound sessions judged again, take-overs seen."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import vodozemac
from aiohttp import web
from nio import AsyncClientConfig, KeysUploadError, KeysUploadResponse
from nio.crypto import InboundSession

from client_pairs import ALICE, BOB, ROOM, Person, people
from cryptostore import Changes, FencedOut, OlmAccount, OlmSession, OutboundGroupSession, SharedPart
from cryptostore.nio import transaction_id
from cryptostore.store.crypto_store import CryptoStore
from small_homeserver import HangUp, Request, SmallHomeserver


def uploads(server: SmallHomeserver, person: Person) -> list[str]:
    return server.uploaded[person.account.user_id, person.account.device_id]


def on_server(server: SmallHomeserver, person: Person) -> dict[str, Any]:
    return server.one_time_keys[person.account.user_id, person.account.device_id]


def test_keys_are_durable_as_published_before_they_are_uploaded(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, _bob):
            seen: list[bool] = []
            before = alice.stored(OlmAccount)

            def look(request: Request) -> None:
                if request.is_for("keys/upload") and request.user == ALICE.user_id:
                    (row,) = alice.stored(OlmAccount)
                    saved = alice.store.pickles.account(row)
                    seen.append([row] != before and saved.one_time_keys["curve25519"] == {})

            server.faults.append(look)
            on_server(server, alice).clear()
            await alice.round()
            assert seen == [True]

    asyncio.run(scenario())


def test_a_drained_device_refills(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            on_server(server, bob).clear()
            await bob.round()
            assert len(on_server(server, bob)) == 50
            await alice.say("one")
            await bob.round()
            assert bob.read == ["one"]

    asyncio.run(scenario())


def test_a_crash_between_upload_and_answer_offers_no_key_twice_and_loses_none(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            on_server(server, bob).clear()
            await bob.client.sync()

            async def killed(*_: Any) -> None:
                raise asyncio.CancelledError

            bob.client.receive_response = killed  # type: ignore[method-assign,assignment]  # the answer is never handled
            with pytest.raises(asyncio.CancelledError):
                await bob.client.keys_upload()
            assert len(on_server(server, bob)) == 50
            await bob.come_back_after_a_crash()
            await alice.say("one")
            await bob.round()
            await bob.round()
            assert bob.read == ["one"]
            assert len(uploads(server, bob)) == len(set(uploads(server, bob)))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 500, "body": b"{}"},
        {"status": 400, "body": b'{"errcode": "M_UNKNOWN", "error": "One time key already exists"}'},
        {"status": 200, "body": b"<html>"},
    ],
)
def test_a_failed_upload_is_tried_again_later_with_other_keys(memory_url: str, answer: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            tried: list[set[str]] = []

            def fail(request: Request) -> web.Response | None:
                if request.is_for("keys/upload"):
                    tried.append({key["key"] for key in request.body["one_time_keys"].values()})
                    return web.Response(**answer) if len(tried) == 1 else None
                return None

            server.faults.append(fail)
            on_server(server, bob).clear()
            await bob.client.sync()
            assert isinstance(await bob.client.keys_upload(), KeysUploadError)
            assert not bob.client.should_upload_keys
            bob.client._key_uploads._next = 0.0
            assert bob.client.should_upload_keys
            assert isinstance(await bob.client.keys_upload(), KeysUploadResponse)
            assert not tried[0] & tried[1]

    asyncio.run(scenario())


def test_an_upload_without_an_answer_is_not_repeated(memory_url: str) -> None:
    async def scenario() -> None:
        patient = AsyncClientConfig(max_timeouts=3)
        async with people(memory_url, config=patient) as (server, _alice, bob):
            tried: list[Request] = []

            def hang_up(request: Request) -> web.Response | None:
                if request.is_for("keys/upload"):
                    tried.append(request)
                    return HangUp()
                return None

            server.faults.append(hang_up)
            on_server(server, bob).clear()
            await bob.client.sync()
            assert isinstance(await bob.client.keys_upload(), KeysUploadError)
            assert len(tried) == 1

    asyncio.run(scenario())


def test_an_upload_that_is_refused_for_now_is_repeated_with_the_same_keys(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            tried: list[Request] = []

            def refuse_once(request: Request) -> web.Response | None:
                if request.is_for("keys/upload"):
                    tried.append(request)
                    if len(tried) == 1:
                        wait = {"errcode": "M_LIMIT_EXCEEDED", "error": "too fast", "retry_after_ms": 1}
                        return web.json_response(wait, status=429)
                return None

            server.faults.append(refuse_once)
            on_server(server, bob).clear()
            await bob.client.sync()
            assert isinstance(await bob.client.keys_upload(), KeysUploadResponse)
            # The server has not taken the keys in, so that no other device has them.
            assert [request.body for request in tried] == [tried[0].body] * 2
            assert len(uploads(server, bob)) == len(set(uploads(server, bob)))

    asyncio.run(scenario())


def test_a_one_time_key_is_consumed_in_the_batch_of_its_session(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[Changes] = []
    apply = CryptoStore.apply

    def noted(self: CryptoStore, changes: Changes) -> None:
        apply(self, changes)
        if self.account == BOB:
            batches.append(changes)

    async def scenario() -> None:
        monkeypatch.setattr(CryptoStore, "apply", noted)
        async with people(memory_url) as (server, alice, bob):
            await alice.say("one")
            ((_, event),) = server.to_device[BOB.user_id, BOB.device_id]
            ours = bob.client.machine.account.identity_keys["curve25519"]
            message = vodozemac.PreKeyMessage.from_base64(event["content"]["ciphertext"][ours]["body"])
            before = bob.store.pickles.account(bob.stored(OlmAccount)[0])
            batches.clear()
            await bob.client.sync()
            (batch,) = [batch for batch in batches if batch.puts(OlmSession)]
            (row,) = [record for record in batch.puts(OlmAccount) if isinstance(record, OlmAccount)]
            sender_key = event["content"]["sender_key"]
            InboundSession(before, message, sender_key).decrypt(message)
            with pytest.raises(vodozemac.SessionCreationException):
                InboundSession(bob.store.pickles.account(row), message, sender_key).decrypt(message)

    asyncio.run(scenario())


async def restarted(person: Person) -> int:
    """Restart and send; returns how many sessions of the earlier process were used again."""
    await person.restart()
    await person.client.sync()
    await person.say("after the restart")
    return person.client.statistics.adopted_sessions


def test_a_device_blacklisted_before_the_first_sync_reads_nothing_more(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (_server, alice, bob):
            await alice.say("one")
            await bob.round()
            await alice.restart()
            await asyncio.to_thread(alice.store.load_device_keys().prefetch, [BOB.user_id])
            (device,) = alice.client.device_store.active_user_devices(BOB.user_id)
            alice.client.blacklist_device(device)
            await alice.client.flush()
            await alice.client.sync()
            await alice.say("two")
            await bob.round()
            assert bob.read == ["one"]
            assert alice.client.statistics.adopted_sessions == 0

    asyncio.run(scenario())


def test_a_device_deleted_while_we_were_down_gets_a_new_session_made(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, _bob):
            await alice.say("one")
            await alice.client.flush()
            (old,) = alice.stored(OutboundGroupSession)
            server.delete_device((BOB.user_id, BOB.device_id))
            assert await restarted(alice) == 0
            (new,) = alice.stored(OutboundGroupSession)
            assert new.created_at != old.created_at
            assert [part.shared_with for part in alice.stored(SharedPart)] == []

    asyncio.run(scenario())


def test_a_member_who_left_while_we_were_down_gets_a_new_session_made(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, _bob):
            await alice.say("one")
            server.join(ROOM, BOB.user_id, "leave")
            assert await restarted(alice) == 0
            assert alice.stored(OutboundGroupSession)
            assert [part.shared_with for part in alice.stored(SharedPart)] == []

    asyncio.run(scenario())


def test_a_session_that_fits_is_used_again_whatever_the_homeserver_reports_as_changed(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, _bob):
            await alice.say("one")
            server.changed.append((server._advance(), BOB.user_id))
            assert await restarted(alice) == 1

    asyncio.run(scenario())


def test_an_invalidation_is_durable_before_the_next_send(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (_server, alice, _bob):
            await alice.say("one")
            for _ in ("the one in use", "one of an earlier process"):
                alice.client.invalidate_outbound_session(ROOM)
                await alice.client.joined_members(ROOM)
                assert alice.stored(OutboundGroupSession) == []
                await alice.client.sync()
                await alice.say("with another key")
                await alice.restart()

    asyncio.run(scenario())


def test_sync_forever_ends_with_the_name_of_whoever_took_over(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, bob):
            forever = asyncio.create_task(bob.client.sync_forever(timeout=50))
            await bob.client.synced.wait()
            newer = Person(server, BOB, f"{url}{'&' if '?' in url else '?'}owner=the-newer-process")
            await newer.start()
            await alice.say("one")
            with pytest.raises(FencedOut, match="the-newer-process"):
                await forever
            asked = len(server.asked("", BOB.user_id))
            with pytest.raises(FencedOut):
                await bob.say("never sent")
            await bob.client.close()
            assert len(server.asked("", BOB.user_id)) == asked
            await newer.round()
            assert newer.read == ["one"]
            await newer.client.close()

    asyncio.run(scenario())


def test_an_answer_with_a_derived_transaction_id_happens_once(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (_server, alice, _bob):
            first = await alice.say("answer", transaction_id("$question"))
            assert await alice.say("answer", transaction_id("$question")) == first
            assert await alice.say("answer", transaction_id("$question", "second answer")) != first

    asyncio.run(scenario())
