"""What changes while nothing is sent is durable by the timer, and by `close`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from nio import MegolmEvent

from client_pairs import ALICE, BOB, ROOM, Person, people
from cryptostore import (
    Account,
    Device,
    InboundGroupSession,
    Mode,
    OlmMessage,
    OutboundGroupSession,
    ReplayPage,
    TrackedUser,
    open_backend,
)
from cryptostore.nio import ProductionMatrixClient
from cryptostore.nio.client.handled import HandledMessages
from cryptostore.records.fields import DeviceTrust
from cryptostore_contract.samples import KEY


async def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until it is so, for as long as a timer can take on a slow machine."""
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def at_rest(person: Person) -> None:
    """Nothing waits, and no timer runs."""
    await person.client.flush()
    await eventually(lambda: person.client._session.flusher._timer is None)


async def verify_bob(alice: Person) -> None:
    (device,) = alice.client.device_store.active_user_devices(BOB.user_id)
    assert alice.client.verify_device(device)


def trust_in_bob(alice: Person) -> list[DeviceTrust]:
    return [row.trust for row in alice.stored(Device) if row.user_id == BOB.user_id]


def test_what_changes_between_opening_and_closing_is_kept(url: str) -> None:
    async def scenario() -> None:
        async with people(url) as (_, alice, _bob):
            await alice.restart()
            await verify_bob(alice)
            await alice.client.close()
            assert trust_in_bob(alice) == [DeviceTrust.VERIFIED]

    asyncio.run(scenario())


def test_keys_that_are_imported_between_opening_and_closing_are_kept(url: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with people(url) as (server, alice, _bob):
            await alice.say("one")
            await alice.client.export_keys(str(tmp_path / "keys"), "passphrase", 1)
            tablet = Person(server, Account(ALICE.user_id, "ALICETABLET"), url)
            async with tablet.client:
                await tablet.client.open()
                await tablet.client.import_keys(str(tmp_path / "keys"), "passphrase")
            assert len(tablet.stored(InboundGroupSession)) == 1

    asyncio.run(scenario())


def test_what_changes_after_opening_is_kept_by_the_timer(url: str) -> None:
    async def scenario() -> None:
        async with people(url, flush_interval=0.01) as (_, alice, _bob):
            await alice.restart()
            await verify_bob(alice)
            await eventually(lambda: trust_in_bob(alice) == [DeviceTrust.VERIFIED])

    asyncio.run(scenario())


def test_what_changes_in_a_store_that_was_opened_before_the_loop_is_kept(url: str) -> None:
    async def prepare() -> None:
        async with people(url):
            pass

    async def close() -> None:
        await client.close()

    asyncio.run(prepare())
    names = (ALICE.user_id, ALICE.device_id)
    client = ProductionMatrixClient("http://localhost", *names, store=url, pickle_key=KEY)
    client.restore_login(*names, "token")
    client.load_store()
    (device,) = client.device_store.active_user_devices(BOB.user_id)
    assert client.verify_device(device)
    asyncio.run(close())
    with open_backend(url) as backend, backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        (row,) = store.select(Device, [(BOB.user_id,)])[(BOB.user_id,)]
        assert row.trust is DeviceTrust.VERIFIED


def test_look_ups_count_from_the_opening_on(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (_, alice, _bob):
            await alice.restart()
            alice.store.load_device_keys()["@stranger:small"]
            assert alice.client.statistics.loop_reads == 1

    asyncio.run(scenario())


def test_an_invalidated_key_is_gone_by_the_timer(url: str) -> None:
    async def scenario() -> None:
        async with people(url, flush_interval=0.01) as (_, alice, _bob):
            await alice.say("one")
            await at_rest(alice)
            alice.client.invalidate_outbound_session(ROOM)
            await eventually(lambda: alice.stored(OutboundGroupSession) == [])

    asyncio.run(scenario())


def test_a_key_that_all_have_counts_as_shared_by_the_timer(url: str) -> None:
    async def scenario() -> None:
        async with people(url, flush_interval=0.01) as (_, alice, _bob):
            await alice.client.joined_members(ROOM)
            await alice.client.share_group_session(ROOM, ignore_unverified_devices=True)
            await eventually(lambda: [row.shared for row in alice.stored(OutboundGroupSession)] == [True])

    asyncio.run(scenario())


def test_which_event_used_an_index_is_kept_by_the_timer(url: str) -> None:
    async def scenario() -> None:
        async with people(url, flush_interval=0.01) as (server, alice, bob):
            await alice.say("one")
            await bob.round()
            await alice.say("two")
            event = MegolmEvent.from_dict(server.timeline[ROOM][-1][1])
            assert isinstance(event, MegolmEvent)
            event.room_id = ROOM
            await at_rest(bob)
            assert bob.client.decrypt_event(event).body == "two"
            await eventually(lambda: [len(page.events) for page in bob.stored(ReplayPage)] == [2 * 12])

    asyncio.run(scenario())


def test_who_is_out_of_date_is_kept_by_the_timer(url: str) -> None:
    async def scenario() -> None:
        async with people(url, flush_interval=0.01) as (_, alice, _bob):

            def outdated() -> set[str]:
                return {row.user_id for row in alice.stored(TrackedUser) if row.outdated}

            await at_rest(alice)
            alice.client.machine.add_changed_users({BOB.user_id})
            await eventually(lambda: outdated() == {BOB.user_id})
            await alice.client.keys_query()
            await eventually(lambda: outdated() == set())

    asyncio.run(scenario())


def test_a_ciphertext_that_was_refused_is_remembered_by_the_timer(url: str) -> None:
    async def scenario() -> None:
        async with people(url, flush_interval=0.01) as (_, alice, _bob):
            await at_rest(alice)
            alice.store.handled.add(HandledMessages.key("curve", "ciphertext"))
            await eventually(lambda: len(alice.stored(OlmMessage)) == 1)

    asyncio.run(scenario())
