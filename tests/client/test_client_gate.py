"""Nothing is sent before it is durable, and a database that is away loses nothing."""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from aiohttp import web
from nio.crypto import OlmDevice

from client_pairs import ALICE, BOB, ROOM, Person, lockable, locked, people
from cryptostore import (
    Account,
    AccountNotFound,
    BackendUnavailable,
    Device,
    DeviceTrust,
    InboundGroupSession,
    OlmAccount,
    OutboundGroupSession,
    StorageFull,
    StoreClosed,
    TrackedUser,
    open_backend,
)
from small_homeserver import Request


def test_what_a_request_depends_on_is_durable_before_it_is_sent(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, _bob):
            seen: list[tuple[int, int]] = []

            def look(request: Request) -> None:
                if request.is_for("/send/m.room.encrypted"):
                    (session,) = alice.stored(OutboundGroupSession)
                    seen.append((session.message_count, len(alice.stored(InboundGroupSession))))

            server.faults.append(look)
            await alice.say("one")
            await alice.say("two")
            assert seen == [(1, 1), (2, 1)]

    asyncio.run(scenario())


def test_a_failed_flush_sends_nothing_keeps_everything_and_recovers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with people(lockable(tmp_path), "memory://") as (server, alice, bob):
            await alice.say("before")
            with locked(tmp_path):
                asked = len(server.requests)
                with pytest.raises(BackendUnavailable):
                    await alice.say("while away")
                assert len(server.requests) == asked
                assert alice.client.statistics.failed_flushes == 1
            await alice.say("after")
            await bob.round()
            # What could not be sent was refused, and its message index is not used again.
            assert bob.read == ["before", "after"]
            assert [session.message_count for session in alice.stored(OutboundGroupSession)] == [3]

    asyncio.run(scenario())


def test_a_key_that_could_not_be_saved_is_not_shared_and_the_room_does_not_hang(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with people(lockable(tmp_path), "memory://") as (server, alice, bob):
            with locked(tmp_path), pytest.raises(BackendUnavailable):
                await alice.say("first")
            assert alice.client.sharing_session == {}
            assert server.asked("sendToDevice") == []
            assert not any(session.shared for session in alice.client.machine.outbound_group_sessions.values())
            await alice.say("second")
            await bob.round()
            assert bob.read == ["second"]

    asyncio.run(scenario())


def test_a_database_that_goes_away_before_the_room_key_is_sent_is_told_to_the_caller(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with people(lockable(tmp_path), "memory://") as (server, alice, bob):
            with ExitStack() as away:

                def go_away(request: Request) -> None:
                    if request.is_for("keys/claim"):
                        away.enter_context(locked(tmp_path))

                server.faults.append(go_away)
                with pytest.raises(BackendUnavailable):
                    await alice.say("too early")
                assert server.asked("sendToDevice") == []
                assert alice.client.sharing_session == {}
                server.faults.clear()
            await alice.say("in time")
            await bob.round()
            assert bob.read == ["in time"]

    asyncio.run(scenario())


def test_a_device_that_appears_while_the_key_is_shared_gets_it_too(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            tablet = Person(server, Account(BOB.user_id, "BOBTABLET"), "memory://")
            await tablet.start()
            await tablet.round()

            def learn(request: Request) -> None:
                # What the answer to a sibling's key query does, in the middle of the first round.
                if request.is_for("sendToDevice") and request.user == ALICE.user_id:
                    uploaded = server.device_keys[BOB.user_id, "BOBTABLET"]["keys"]
                    keys = {name: uploaded[f"{name}:BOBTABLET"] for name in ("ed25519", "curve25519")}
                    alice.client.device_store.add(OlmDevice(BOB.user_id, "BOBTABLET", keys))

            server.faults.append(learn)
            await alice.say("for everybody")
            for device in (bob, tablet):
                await device.round()
                assert device.read == ["for everybody"]
            await tablet.client.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ["keys/claim", "sendToDevice"])
@pytest.mark.parametrize(
    ("status", "body"),
    [(500, '{"errcode": "M_UNKNOWN", "error": "no"}'), (502, "<html>"), (502, "{}"), (200, "<html>")],
)
def test_a_homeserver_that_refuses_a_key_gets_no_message(memory_url: str, path: str, status: int, body: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):

            def refuse(request: Request) -> web.Response | None:
                if request.is_for(path):
                    return web.Response(status=status, text=body, content_type="application/json")
                return None

            server.faults.append(refuse)
            with pytest.raises(Exception, match="not shared"):
                await alice.say("too early")
            assert alice.client.sharing_session == {}
            assert server.asked("/send/m.room") == []
            # Another try is the caller's decision.
            assert len(server.asked(path)) == 1
            server.faults.clear()
            await alice.say("in time")
            await bob.round()
            assert bob.read == ["in time"]

    asyncio.run(scenario())


def test_a_device_without_one_time_keys_is_left_out_and_the_others_read(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, _bob):
            server.take_all_keys((BOB.user_id, BOB.device_id))
            await alice.say("nobody reads this")
            session = alice.client.machine.outbound_group_sessions[ROOM]
            assert session.shared
            assert (BOB.user_id, BOB.device_id) in session.users_ignored

    asyncio.run(scenario())


def test_a_cancelled_caller_does_not_stop_the_flush(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (_, alice, _bob):
            alice.store.save_account(alice.client.machine.account)
            alice.client.machine.account.generate_one_time_keys(1)
            before = alice.stored(OlmAccount)
            flush = asyncio.create_task(alice.client.flush())
            await asyncio.sleep(0)
            flush.cancel()
            await asyncio.gather(flush, return_exceptions=True)
            await alice.client.flush()
            assert alice.stored(OlmAccount) != before

    asyncio.run(scenario())


def test_what_changes_outside_a_sync_is_durable_by_the_timer(url: str) -> None:
    async def scenario() -> None:
        async with people(url, flush_interval=0.01) as (_, alice, _bob):
            (bobs_device,) = alice.client.device_store.active_user_devices(BOB.user_id)
            assert alice.client.verify_device(bobs_device)
            # Not until the next flush is counted: one may be under way that began before.
            while DeviceTrust.VERIFIED not in [device.trust for device in alice.stored(Device)]:  # noqa: ASYNC110  # a timer sets no event
                await asyncio.sleep(0.01)
            await alice.come_back_after_a_crash()
            (again,) = alice.client.device_store.active_user_devices(BOB.user_id)
            assert again.verified

    asyncio.run(scenario())


def test_a_deleted_account_stops_the_client(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, _bob):
            with open_backend(url) as backend:
                backend.delete_account(ALICE)
            asked = len(server.requests)
            for _ in range(2):
                with pytest.raises(AccountNotFound):
                    await alice.say("hello")
            assert len(server.requests) == asked

    asyncio.run(scenario())


def test_a_closed_client_sends_nothing(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, _bob):
            await alice.client.close()
            await alice.client.close()
            asked = len(server.requests)
            with pytest.raises(StoreClosed):
                await alice.client.joined_members(ROOM)
            assert len(server.requests) == asked
            await alice.start()
            await alice.round()
            await alice.say("again")

    asyncio.run(scenario())


def test_whose_devices_are_followed_survives_a_restart(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, _bob):
            await alice.restart()
            queries = len(server.asked("keys/query", ALICE.user_id))
            await alice.client.sync()
            assert {row.user_id for row in alice.stored(TrackedUser)} == {ALICE.user_id, BOB.user_id}
            assert not alice.client.should_query_keys
            # One question: whether the homeserver's keys are ours.
            assert len(server.asked("keys/query", ALICE.user_id)) == queries + 1
            server.changed.append((server._advance(), BOB.user_id))
            await alice.client.sync()
            assert alice.client.users_for_key_query == {BOB.user_id}
            await alice.come_back_after_a_crash()
            assert alice.client.users_for_key_query == {BOB.user_id}

    asyncio.run(scenario())


def test_a_full_database_loses_nothing(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (_, alice, _bob):
            (device,) = alice.client.device_store.active_user_devices(BOB.user_id)
            alice.client.verify_device(device)
            # The contract fills real disks; here it is enough that the batch is refused and rolled back.
            with pytest.MonkeyPatch.context() as full:
                full.setattr(alice.store.storage._store._sequence, "_commit", _refuse)
                with pytest.raises(StorageFull):
                    await alice.client.flush()
            await alice.client.flush()
            await alice.come_back_after_a_crash()
            (again,) = alice.client.device_store.active_user_devices(BOB.user_id)
            assert again.verified

    asyncio.run(scenario())


def _refuse(*_: object) -> None:
    raise StorageFull("full")


def test_a_flush_waits_for_what_changed_while_another_was_on_its_way(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (_, alice, _bob):
            (device,) = alice.client.device_store.active_user_devices(BOB.user_id)
            alice.client.verify_device(device)
            first = asyncio.create_task(alice.client.flush())
            # The first batch was taken, and is on its way.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            alice.client.unverify_device(device)
            alice.client.blacklist_device(device)
            await alice.client.flush()
            assert [row.trust.value for row in alice.stored(Device) if row.user_id == BOB.user_id] == ["blacklisted"]
            await first

    asyncio.run(scenario())


def test_an_older_flush_that_found_no_database_does_not_fail_a_caller_who_finds_one(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (_, alice, _bob):
            (device,) = alice.client.device_store.active_user_devices(BOB.user_id)
            alice.client.verify_device(device)
            apply, begun, go_on = alice.store.storage.apply_taken, threading.Event(), threading.Event()

            def fail_once() -> None:
                alice.store.storage.apply_taken = apply  # type: ignore[method-assign]
                begun.set()
                go_on.wait()
                raise BackendUnavailable("away")

            alice.store.storage.apply_taken = fail_once  # type: ignore[method-assign]
            older = asyncio.create_task(alice.client.flush())
            await asyncio.to_thread(begun.wait)
            newer = asyncio.create_task(alice.client.flush())
            await asyncio.sleep(0)
            go_on.set()
            with pytest.raises(BackendUnavailable):
                await older
            await newer
            assert [row.trust.value for row in alice.stored(Device) if row.user_id == BOB.user_id] == ["verified"]

    asyncio.run(scenario())


def test_a_request_that_waits_while_the_client_is_closed_is_not_sent(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, _bob):
            (device,) = alice.client.device_store.active_user_devices(BOB.user_id)
            alice.client.verify_device(device)
            asked = len(server.requests)
            request = asyncio.create_task(alice.client.whoami())
            await asyncio.sleep(0)
            await alice.client.close()
            with pytest.raises(StoreClosed):
                await request
            assert len(server.requests) == asked

    asyncio.run(scenario())
