"""Two processes of one device, and many accounts in one database."""

from __future__ import annotations

import json
import socket

import pytest

from cryptostore import Account, Mode, Value, new_pickle_key, open_backend
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
    assert f"taken over by {socket.gethostname()}:{newer.pid} [" in ended["text"], ended["text"]
    with pytest.raises(ClientFailed, match="FencedOut"):
        older.call("send", room=talk.room, text="from the grave")
    assert "from the grave" not in alice.call("history", room=talk.room).values()
    newer.call("sync")
    talk.both_directions_work(alice, newer)
    assert talk.unreadable(newer) == []
    assert talk.indices_used_twice() == 0


def test_a_start_that_cannot_succeed_fences_nobody(any_bed: Bed) -> None:
    talk, alice, bob = met(any_bed)
    config = talk.bob.config
    starts: list[tuple[dict[str, str], str]] = [
        ({"pickle_key": new_pickle_key()}, "WrongPickleKey"),
        ({"homeserver": "http://127.0.0.1:1"}, "HomeserverUnavailable"),
        ({"device_id": "MISTYPED", "password": "wrong"}, "ConfigurationError.*M_FORBIDDEN"),
        ({"device_id": "", "store": any_bed.new_url(), "password": "wrong"}, "ConfigurationError.*M_FORBIDDEN"),
        ({"device_id": "MISTYPED", "password": ""}, f"ConfigurationError.*{config.device_id}"),
        ({"access_token": talk.alice.user.access_token}, "ConfigurationError.*the access token is that of"),
        ({"access_token": "of nobody"}, "AccessTokenRejected"),
        ({"store": any_bed.new_url()}, "ConfigurationError.*other keys than the database"),
        ({"user_id": config.user_id.upper()}, f"ConfigurationError.*{config.user_id}"),
    ]
    for changes, error in starts:
        with pytest.raises(ClientFailed, match=f"(?s){error}"):
            any_bed.start(talk.bob, **changes)
    bob.call("sync")
    talk.both_directions_work(alice, bob)
    with open_backend(config.store) as backend:
        assert [(account.device_id, owner.epoch) for account, owner in backend.accounts().items()] == [
            (config.device_id, 1)
        ]


def test_an_account_that_changes_hands_too_often_is_waited_for(any_bed: Bed) -> None:
    talk, alice, bob = met(any_bed)
    rivals, pauses = [bob], [_pause(talk)]
    for _ in range(5):
        rivals.append(any_bed.start(talk.bob))
        rivals[-1].call("flush")
        pauses.append(_pause(talk))
    # Three in a minute are free; the seconds before the others grow.
    assert pauses == [0.0, 0.0, 0.0, 0.0, 1.0, 2.0]
    for older in rivals[:-1]:
        with pytest.raises(ClientFailed, match="FencedOut"):
            older.call("sync")
    # A process that takes over from one that has ended does not wait.
    rivals[-1].kill()
    newest = any_bed.start(talk.bob)
    newest.call("sync")
    assert _pause(talk) == pauses[-1]
    talk.both_directions_work(alice, newest)
    assert talk.unreadable(newest) == []
    assert talk.indices_used_twice() == 0


def _pause(talk: Talk) -> float:
    """How many seconds the last take-over of Bob's account waited."""
    config, key = talk.bob.config, ("client", "take-overs")
    account = Account(config.user_id, config.device_id)
    with (
        open_backend(config.store) as backend,
        backend.open_store(account, Mode.READ, pickle_key=config.pickle_key) as store,
    ):
        found = store.get(Value, [key]).get(key)
    return float(json.loads(found.value)["pause"]) if found else 0.0


def test_an_account_deleted_under_a_running_client_ends_it(bed: Bed) -> None:
    talk, alice, bob = met(bed)
    bob.call("sync_forever")
    config = talk.bob.config
    with open_backend(config.store) as backend:
        backend.delete_account(Account(config.user_id, config.device_id))
    talk.say(alice, "who is there?", rotate=True)
    ended = bob.until(lambda told: next((each for each in told if each["event"] == "ended"), None))
    assert ended["error"] == "AccountNotFound"
    with pytest.raises(ClientFailed, match="AccountNotFound"):
        bob.call("send", room=talk.room, text="from the grave")
    assert "from the grave" not in alice.call("history", room=talk.room).values()


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
