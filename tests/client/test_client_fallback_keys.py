"""The fallback key: offered until the homeserver has it, replaced when nobody can need the one before it."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import pytest
from aiohttp import ServerDisconnectedError, web
from nio import KeysUploadError

from client_pairs import BOB, Person, people
from clock import Clock
from cryptostore import FallbackKey, OlmAccount
from fallback_devices import ALGORITHM, PHONE, new_device, offers, send_room_key, use_fallback_key, write
from small_homeserver import HangUp, Request, SmallHomeserver
from spoiling import spoil


def test_three_hundred_new_devices_write_while_the_client_is_down(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, _alice, bob):
            await bob.client.close()
            ids = []
            for number in range(300):
                device, key_id = new_device(server, f"DEVICE{number}")
                ids.append(key_id)
                write(server, device, f"message {number}")
            assert len(set(ids[:50])) == 50
            # The fallback key's id may be that of a one-time key.
            assert len(set(ids[50:])) == 1
            bob.client = bob._make()
            await bob.start()
            await bob.round()
            assert bob.read == [f"message {number}" for number in range(300)]
            assert bob.client.statistics.loop_reads == 0

    asyncio.run(scenario())


def test_the_key_is_signed_with_its_flag(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            ((name, key),) = server.fallback_keys[PHONE].items()
            assert name.startswith(f"{ALGORITHM}:")
            assert key["fallback"] is True
            machine = bob.client.machine
            signing_key = machine.account.identity_keys["ed25519"]
            assert machine.verify_json(dict(key), signing_key, *PHONE)
            assert not machine.verify_json({**key, "fallback": False}, signing_key, *PHONE)
            assert len(offers(server)) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("field", "is_uploaded"), [([], True), (["other"], True), (None, False), ("text", False), ({"a": 1}, False)]
)
def test_only_a_homeserver_that_has_fallback_keys_is_offered_one(
    memory_url: str, monkeypatch: pytest.MonkeyPatch, field: Any, is_uploaded: bool
) -> None:
    real = SmallHomeserver._sync

    async def other(self: SmallHomeserver, *args: Any) -> Any:
        answer: Any = await real(self, *args)
        body = json.loads(answer.text)
        body.pop("device_unused_fallback_key_types")
        return web.json_response(body if field is None else {**body, "device_unused_fallback_key_types": field})

    async def scenario() -> None:
        monkeypatch.setattr(SmallHomeserver, "_sync", other)
        async with people(memory_url) as (server, alice, bob):
            assert bool(offers(server)) is is_uploaded
            assert bool(bob.stored(FallbackKey)) is is_uploaded
            await alice.say("one")
            await bob.round()
            assert bob.read == ["one"]

    asyncio.run(scenario())


async def drained_of_fallback_keys(server: SmallHomeserver, bob: Person, clock: Clock) -> None:
    """The homeserver has handed Bob's fallback key out, an hour has passed, and Bob has synced."""
    use_fallback_key(server, "NEW")
    clock.passes(hours=1)
    await bob.client.sync()


REFUSALS = [
    {"status": 500, "body": b"{}"},
    {"status": 400, "body": b'{"errcode": "M_UNKNOWN", "error": "no"}'},
    {"status": 200, "body": b"<html>"},
    None,
]


@pytest.mark.parametrize("answer", REFUSALS)
def test_a_key_that_was_not_confirmed_is_offered_again_and_no_other_is_made(
    url: str, clock: Clock, answer: dict[str, Any] | None
) -> None:
    async def scenario() -> None:
        async with people(url) as (server, _alice, bob):
            is_away = True

            def fail(request: Request) -> web.StreamResponse | None:
                if not is_away or not request.is_for("keys/upload"):
                    return None
                return HangUp() if answer is None else web.Response(**answer)

            first = use_fallback_key(server, "FIRST")
            clock.passes(hours=1)
            server.faults.append(fail)
            await bob.client.sync()
            for _ in range(3):
                bob.client._key_uploads._next = 0.0
                bob.client.machine.fallback_keys.try_now()
                with suppress(ServerDisconnectedError):
                    assert isinstance(await bob.client.keys_upload(), KeysUploadError)
                clock.passes(hours=1)
                await bob.client.sync()
            await bob.come_back_after_a_crash()
            is_away = False
            await bob.round()
            assert len(offers(server)) == 5
            assert all(offer == offers(server)[1] for offer in offers(server)[1:])
            await bob.client.flush()
            (row,) = bob.stored(FallbackKey)
            assert row.confirmed
            # The private half of the one before is still there, and that of the new one.
            write(server, first, "first")
            write(server, use_fallback_key(server, "SECOND"), "second")
            await bob.round()
            assert bob.read == ["first", "second"]

    asyncio.run(scenario())


def test_a_refused_fallback_key_keeps_no_one_time_key_back(memory_url: str) -> None:
    def refuse(request: Request) -> web.StreamResponse | None:
        if request.is_for("keys/upload") and "fallback_keys" in request.body:
            return web.json_response({"errcode": "M_UNKNOWN", "error": "no"}, status=400)
        return None

    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            server.faults.append(refuse)
            server.take_all_keys(PHONE)
            bob.client.machine.fallback_keys.offer_again()
            await bob.client.sync()
            assert isinstance(await bob.client.keys_upload(), KeysUploadError)
            bob.client._key_uploads._next = 0.0
            await bob.round()
            assert len(server.one_time_keys[PHONE]) == 50

    asyncio.run(scenario())


def test_a_key_alone_is_uploaded_without_one_time_keys(memory_url: str, clock: Clock) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            await drained_of_fallback_keys(server, bob, clock)
            assert len(server.one_time_keys[PHONE]) == 50
            await bob.client.keys_upload()
            assert server.asked("keys/upload", BOB.user_id)[-1].body.keys() == {"fallback_keys"}
            assert not bob.client.should_upload_keys

    asyncio.run(scenario())


def test_a_key_is_replaced_when_it_was_used_and_is_old_and_all_messages_were_read(
    memory_url: str, clock: Clock
) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            clock.passes(hours=1)
            await bob.round()
            assert len(offers(server)) == 1  # it was not used
            device = use_fallback_key(server, "NEW")
            clock.passes(minutes=-1)
            await bob.round()
            clock.passes(minutes=1)
            await bob.round()
            assert len(offers(server)) == 2
            # Old again, and used, but there are messages.
            use_fallback_key(server, "NEWER")
            clock.passes(hours=1)
            send_room_key(server, device)
            await bob.round()
            assert len(offers(server)) == 2
            await bob.round()
            assert len(offers(server)) == 3
            assert len({str(offer) for offer in offers(server)}) == 3

    asyncio.run(scenario())


def test_a_used_key_younger_than_an_hour_stays(memory_url: str, clock: Clock) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            use_fallback_key(server, "NEW")
            clock.passes(minutes=59)
            await bob.round()
            assert len(offers(server)) == 1
            clock.passes(minutes=1)
            await bob.round()
            assert len(offers(server)) == 2

    asyncio.run(scenario())


def test_messages_that_wait_behind_a_page_outlive_two_uses(memory_url: str, clock: Clock) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            await bob.client.close()
            server.page_size = 10
            server.one_time_keys[PHONE].clear()
            texts = [f"message {number}" for number in range(35)]
            for text in texts:
                device, _ = new_device(server, text.replace(" ", ""))
                write(server, device, text)
            bob.client = bob._make()
            await bob.start()
            for _ in range(6):
                use_fallback_key(server, "ANOTHER")
                clock.passes(hours=1)
                await bob.round()
            assert bob.read == texts

    asyncio.run(scenario())


@pytest.mark.parametrize("crashes", [False, True])
def test_a_device_that_logged_out_and_in_again_offers_the_same_key(url: str, crashes: bool) -> None:
    async def scenario() -> None:
        async with people(url) as (server, _alice, bob):
            before = dict(server.fallback_keys[PHONE])
            server.delete_device(PHONE)
            assert PHONE not in server.fallback_keys
            await (bob.come_back_after_a_crash() if crashes else bob.restart())
            await bob.round()
            assert server.fallback_keys[PHONE] == before
            assert len(server.one_time_keys[PHONE]) == 50

    asyncio.run(scenario())


def test_a_key_is_durable_with_its_account_before_it_is_uploaded(url: str, clock: Clock) -> None:
    async def scenario() -> None:
        async with people(url) as (server, _alice, bob):
            seen: list[bool] = []

            def look(request: Request) -> None:
                if request.is_for("keys/upload") and request.user == BOB.user_id:
                    ((name, key),) = request.body["fallback_keys"].items()
                    (row,) = bob.stored(FallbackKey)
                    (account,) = bob.stored(OlmAccount)
                    unpublished: Any = bob.store.pickles.account(account)._account
                    is_the_same = (name, key["key"]) == (f"{ALGORITHM}:{row.key_id}", row.public_key)
                    seen.append(is_the_same and not row.confirmed and unpublished.fallback_key == {})

            server.faults.append(look)
            await drained_of_fallback_keys(server, bob, clock)
            await bob.client.keys_upload()
            assert seen == [True]

    asyncio.run(scenario())


def test_a_crash_before_the_answer_was_handled_loses_no_key(url: str, clock: Clock) -> None:
    async def scenario() -> None:
        async with people(url) as (server, _alice, bob):
            old = use_fallback_key(server, "OLD")
            clock.passes(hours=1)
            await bob.client.sync()

            async def killed(*_: Any) -> None:
                raise asyncio.CancelledError

            bob.client.receive_response = killed  # type: ignore[method-assign,assignment]  # the answer is never handled
            with pytest.raises(asyncio.CancelledError):
                await bob.client.keys_upload()
            new = use_fallback_key(server, "NEW")
            clock.passes(hours=1)
            await bob.come_back_after_a_crash()
            await bob.round()
            assert offers(server)[1] == offers(server)[2]
            write(server, old, "old")
            write(server, new, "new")
            await bob.round()
            assert bob.read == ["old", "new"]

    asyncio.run(scenario())


def test_a_time_far_ahead_keeps_no_key_for_ever(memory_url: str, clock: Clock) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            use_fallback_key(server, "NEW")
            clock.passes(days=-365)
            await bob.round()
            assert len(offers(server)) == 2

    asyncio.run(scenario())


def test_a_client_that_logs_in_again_offers_the_same_key(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            before = dict(server.fallback_keys[PHONE])
            server.delete_device(PHONE)
            await bob.client.login_or_restore("password")
            await bob.errands()
            assert server.fallback_keys[PHONE] == before

    asyncio.run(scenario())


def test_a_damaged_row_leads_to_another_key_and_the_one_before_it_stays_usable(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, _alice, bob):
            old = use_fallback_key(server, "OLD")
            await bob.client.close()
            spoil(url, BOB, FallbackKey)
            await bob.restart()
            await bob.round()
            assert len(offers(server)) == 2
            await bob.restart()
            await bob.round()
            assert len(offers(server)) == 2
            write(server, old, "old")
            write(server, use_fallback_key(server, "NEW"), "new")
            await bob.round()
            assert bob.read == ["old", "new"]

    asyncio.run(scenario())


def test_a_homeserver_that_has_no_fallback_keys_any_more_is_offered_none(memory_url: str, clock: Clock) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            await drained_of_fallback_keys(server, bob, clock)
            server.knows_fallback_keys = False
            server.one_time_keys[PHONE].clear()
            await bob.round()
            assert len(offers(server)) == 1
            assert len(server.one_time_keys[PHONE]) == 50

    asyncio.run(scenario())
