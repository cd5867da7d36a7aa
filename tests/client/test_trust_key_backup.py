"""Sessions in a backup on the server: written, found again, and trusted no more than they deserve."""

from __future__ import annotations

import asyncio
from typing import Any

from nio.events import RoomMessageText

from client_pairs import Person, people
from cryptostore.nio.provenance import note_origin


def of_events(person: Person) -> list[Any]:
    """The messages that a person reads from now on."""
    events: list[Any] = []

    async def note(_room: Any, event: Any) -> None:
        events.append(event)

    person.client.add_event_callback(note, RoomMessageText)
    return events


def test_a_session_from_a_backup_verifies_nobody(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (_server, alice, bob):
            events = of_events(bob)
            await alice.say("one")
            await bob.round()
            (device,) = bob.client.device_store.active_user_devices(alice.account.user_id)
            bob.client.verify_device(device)
            await alice.say("two")
            await bob.round()
            (session,) = bob.client.machine.inbound_group_store
            note_origin(session, from_backup=True)
            await alice.say("three")
            # A backup may claim any key; of a verified device nio refuses those that are not its own.
            session.ed25519 = "another"
            await alice.say("four")
            await bob.round()
            assert [(event.body, event.verified) for event in events] == [
                ("one", False),
                ("two", True),
                ("three", False),
                ("four", False),
            ]
            assert session.forwarding_chain == []

    asyncio.run(scenario())
