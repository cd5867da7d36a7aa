"""Two processes of one device, and many accounts in one database."""

from __future__ import annotations

import pytest

from homeserver_bed import Bed, Talk, met
from homeserver_client import ClientFailed

pytestmark = pytest.mark.e2e


def test_of_two_processes_of_one_device_the_older_ends(bed: Bed) -> None:
    talk, alice, older = met(bed)
    older.call("sync_forever")
    newer = bed.start(talk.bob)
    newer.call("sync")
    talk.say(alice, "who is there?")
    ended = older.until(lambda told: next((each for each in told if each["event"] == "ended"), None))
    assert ended["error"] == "FencedOut"
    # It says who took over.
    assert "@" in ended["text"] or "process" in ended["text"], ended["text"]
    with pytest.raises(ClientFailed, match="FencedOut"):
        older.call("send", room=talk.room, text="from the grave")
    assert "from the grave" not in alice.call("history", room=talk.room).values()
    newer.call("sync")
    talk.both_directions_work(alice, newer)
    assert talk.unreadable(newer) == []
    assert talk.indices_used_twice() == 0


def test_two_accounts_in_one_database_and_one_room(bed: Bed) -> None:
    url = bed.new_url()
    talk, alice, bob = met(bed, stores=(url, url))
    talk.secrets(alice, "from Alice")
    talk.secrets(bob, "from Bob")
    for client in (alice, bob):
        client.kill()
    alice, bob = bed.start(talk.alice), bed.start(talk.bob)
    for client in (alice, bob):
        client.call("sync")
        assert talk.unreadable(client) == []
    talk.both_directions_work(alice, bob)
    assert talk.indices_used_twice() == 0


@pytest.mark.timeout(900)
def test_twenty_accounts_in_one_database_and_one_room(bed: Bed) -> None:
    url = bed.new_url()
    devices = [bed.device(f"user{number}", store=url) for number in range(20)]
    room = bed.api.encrypted_room(*(device.user for device in devices))
    talk = Talk(bed, devices[0], devices[1], room, {})
    clients = [bed.start(device) for device in devices]
    for _ in range(2):
        for client in clients:
            client.call("sync")
    for number, client in enumerate(clients):
        talk.say(client, f"I am number {number}")
    for answer in [client.begin("sync") for client in clients]:
        answer.result(timeout=300)
    for client in clients:
        assert talk.unreadable(client) == [], client.config.user_id
        client.kill()
    for device in devices[:3]:
        client = bed.start(device)
        client.call("sync")
        assert talk.unreadable(client) == [], device.user.user_id
    assert talk.indices_used_twice() == 0
