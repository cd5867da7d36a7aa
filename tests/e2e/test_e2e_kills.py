"""SIGKILL in a sync that brings 60 room keys: whatever was sent is read, and no message index is used twice."""

from __future__ import annotations

import pytest

from homeserver_bed import KEYS, Bed, Talk, met
from homeserver_client import Client

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

#: Where Bob dies in the sync or right after it, and at which pass of that point.
POINTS = [
    ("sync:before", 1),
    ("sync:answered", 1),
    ("to-device:before", 1),
    ("to-device:event", 1),
    ("to-device:event", KEYS // 2),
    ("to-device:event", KEYS),
    ("timeline:before", 1),
    ("timeline:event", KEYS // 2),
    ("timeline:after", 1),
    ("batch:before", 1),
    ("batch:after", 1),
]

#: Where he dies if the keys come on several pages: Synapse gives at most 100 with one answer.
PAGES = [
    ("sync:before", 2),
    ("sync:answered", 2),
    ("to-device:event", 110),
    ("batch:before", 2),
    ("batch:after", 2),
    ("sync:before", 3),
    ("sync:answered", 3),
]

#: Where Bob dies while he sends a first message in a new session.
SENDING = [
    ("batch:before", 1),
    ("batch:after", 1),
    ("batch:before", 2),
    ("batch:after", 2),
    ("send-to-device:before", 1),
    ("send-to-device:answered", 1),
    ("send:before", 1),
    ("send:answered", 1),
]


@pytest.mark.parametrize(("point", "nth"), POINTS)
def test_a_kill_in_a_sync_loses_nothing(bed: Bed, point: str, nth: int) -> None:
    talk, alice, bob = met(bed)
    talk.secrets(alice, "secret")
    bob.call("arm", point=point, nth=nth)
    bob.dies(bob.begin("sync"))
    _recover(talk, alice)


@pytest.mark.parametrize(("point", "nth"), PAGES)
def test_a_kill_between_pages_of_keys_loses_nothing(any_bed: Bed, point: str, nth: int) -> None:
    talk, alice, bob = met(any_bed)
    talk.say_all(alice, *(f"secret {number}" for number in range(120)), rotate=True)
    bob.call("arm", point=point, nth=nth)
    bob.dies(bob.begin("sync"))
    _recover(talk, alice)


@pytest.mark.parametrize(("point", "nth"), SENDING)
def test_a_kill_in_a_send_uses_no_index_twice(bed: Bed, point: str, nth: int) -> None:
    talk, alice, bob = met(bed)
    bob.call("arm", point=point, nth=nth)
    bob.dies(bob.begin("send", room=talk.room, text="last words", rotate=True))
    _recover(talk, alice)


@pytest.mark.parametrize("point", ["keys-upload:before", "keys-upload:answered"])
def test_a_kill_around_the_upload_of_one_time_keys_leaves_a_device_that_works(bed: Bed, point: str) -> None:
    talk, alice, bob = met(bed)
    _use_one_time_keys(talk)
    bob.call("arm", point=point)
    bob.dies(bob.begin("sync"))
    bob = _recover(talk, alice)
    # A user who is not known yet, with one of the new one-time keys.
    carol = bed.device("carol")
    room = bed.api.encrypted_room(carol.user, talk.bob.user)
    carol_client = bed.start(carol)
    for client in (bob, carol_client, bob, carol_client):
        client.call("sync")
    said = carol_client.call("send", room=room, text="hello, stranger")
    bob.call("sync")
    assert bob.texts().get(said) == "hello, stranger"


def _use_one_time_keys(talk: Talk) -> None:
    stranger = talk.bed.api.register("stranger")
    for _ in range(30):
        talk.bed.api.claim_one_time_key(stranger, talk.bob.user, talk.bob.config.device_id)


def _recover(talk: Talk, alice: Client) -> Client:
    """Start Bob again and compare what was sent with what is read."""
    bob = talk.bed.start(talk.bob)
    for client in (bob, alice, bob):
        client.call("sync")
    assert talk.unreadable(bob) == []
    talk.both_directions_work(alice, bob)
    assert talk.unreadable(alice) == []
    assert talk.indices_used_twice() == 0
    return bob
