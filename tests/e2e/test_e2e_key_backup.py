"""Key backup on a real homeserver: whatever is lost or killed, every message that was backed up is read again."""

from __future__ import annotations

import pytest

from driven import ClientFailed
from homeserver_bed import Bed, Device, Talk
from homeserver_client import Client
from homeserver_proxy import HomeserverProxy

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

#: Sessions of Alice's, of which so many go up in one request.
SESSIONS = 20
MOST = 6

#: Where Bob dies while he backs up, and at which pass of that point.
POINTS = [
    ("room-keys:before", 1),
    ("room-keys:answered", 1),
    ("batch:before", 1),
    ("batch:after", 1),
    ("room-keys:before", 3),
    ("room-keys:answered", 3),
]


def spoken(bed: Bed, homeserver: str = "") -> tuple[Talk, Client, Client]:
    """Bob has read Alice's messages, each in a session of its own, and has backed up nothing yet."""
    one, other = bed.device("alice"), bed.device("bob")
    talk = Talk(bed, one, other, bed.api.encrypted_room(one.user, other.user), {})
    alice = bed.start(one)
    bob = bed.start(other, **({"homeserver": homeserver} if homeserver else {}))
    for client in (alice, bob):
        client.call("hold_backup", most=MOST)
    for client in (alice, bob, alice, bob):
        client.call("sync")
    talk.say_all(alice, *(f"message {number}" for number in range(SESSIONS)), rotate=True)
    bob.call("sync")
    return talk, alice, bob


def with_recovery_key(bed: Bed, device: Device, recovery_key: str) -> Client:
    """The user's new device, on an empty database."""
    return bed.start(bed.device_of(device.user), recovery_key=recovery_key)


def test_a_lost_database_loses_no_message(bed: Bed) -> None:
    talk, alice, bob = spoken(bed)
    bob.call("back_up")
    recovery_key = bob.call("own_identity")["recovery_key"]
    bob.kill()
    restored = with_recovery_key(bed, talk.bob, recovery_key)
    assert restored.call("restore_backup") == {"total": SESSIONS, "taken_in": SESSIONS, "skipped": 0}
    assert talk.unreadable(restored) == []
    for client in (alice, restored):
        client.call("sync")
    talk.both_directions_work(alice, restored)


def test_messages_are_read_as_they_come_without_a_whole_restore(any_bed: Bed) -> None:
    talk, _alice, bob = spoken(any_bed)
    bob.call("back_up")
    recovery_key = bob.call("own_identity")["recovery_key"]
    bob.kill()
    restored = with_recovery_key(any_bed, talk.bob, recovery_key)
    restored.call("sync")
    shown = {each["id"] for each in restored.told if each["event"] == "undecrypted"}
    assert shown
    restored.until(lambda told: shown <= {each["id"] for each in told if each["event"] == "message"})
    assert {event_id: talk.sent[event_id] for event_id in shown} == {
        event_id: text for event_id, text in restored.texts().items() if event_id in shown
    }


def test_a_new_host_repeats_nothing(bed: Bed, proxy: HomeserverProxy) -> None:
    talk, alice, bob = spoken(bed, proxy.url)
    bob.call("back_up")
    assert len(uploaded(proxy)) == len(set(uploaded(proxy))) == SESSIONS
    bob.kill()
    bob = bed.start(talk.bob, homeserver=proxy.url)
    talk.say_all(alice, "one more", rotate=True)
    bob.call("sync")
    bob.call("back_up")
    assert len(uploaded(proxy)) == len(set(uploaded(proxy))) == SESSIONS + 1


@pytest.mark.parametrize(("point", "nth"), POINTS)
def test_a_kill_while_backing_up_repeats_one_request_at_most(
    any_bed: Bed, proxy: HomeserverProxy, point: str, nth: int
) -> None:
    talk, _alice, bob = spoken(any_bed, proxy.url)
    bob.call("arm", point=point, nth=nth)
    bob.dies(bob.begin("back_up"))
    bob = any_bed.start(talk.bob, homeserver=proxy.url)
    bob.call("hold_backup", most=MOST)
    bob.call("back_up")
    there = uploaded(proxy)
    assert len(set(there)) == SESSIONS
    assert len(there) <= SESSIONS + MOST
    recovery_key = bob.call("own_identity")["recovery_key"]
    restored = with_recovery_key(any_bed, talk.bob, recovery_key)
    restored.call("restore_backup")
    assert talk.unreadable(restored) == []


@pytest.mark.parametrize("point", ["room-keys:answered", "batch:before", "batch:after"])
def test_a_kill_while_restoring_leaves_what_another_try_completes(any_bed: Bed, point: str) -> None:
    talk, _alice, bob = spoken(any_bed)
    bob.call("back_up")
    recovery_key = bob.call("own_identity")["recovery_key"]
    bob.kill()
    new = any_bed.device_of(talk.bob.user)
    first = any_bed.start(new, recovery_key=recovery_key)
    first.call("flush")
    first.call("arm", point=point)
    first.dies(first.begin("restore_backup"))
    second = any_bed.start(new)
    assert second.call("restore_backup")["total"] == SESSIONS
    assert talk.unreadable(second) == []


def test_a_reset_without_the_key_of_the_backup_makes_a_new_one(any_bed: Bed) -> None:
    talk, alice, bob = spoken(any_bed)
    bob.call("back_up")
    bob.kill()
    lost = any_bed.start(any_bed.device_of(talk.bob.user))
    with pytest.raises(ClientFailed, match="no key for a key backup"):
        lost.call("back_up")
    lost.call("reset_identity", password=talk.bob.user.password)
    for client in (lost, alice, lost, alice):
        client.call("sync")
    talk.say_all(alice, "after the reset", rotate=True)
    lost.call("sync")
    lost.call("back_up")
    recovery_key = lost.call("own_identity")["recovery_key"]
    restored = with_recovery_key(any_bed, talk.bob, recovery_key)
    assert restored.call("restore_backup") == {"total": 1, "taken_in": 1, "skipped": 0}


def uploaded(proxy: HomeserverProxy) -> list[str]:
    """The ids of all sessions that went up, in order."""
    return [
        session_id
        for request in proxy.asked_for("room_keys/keys")
        if request.method == "PUT"
        for room in request.content["rooms"].values()
        for session_id in room["sessions"]
    ]
