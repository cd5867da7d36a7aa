"""The event loop never waits for the database, however slow that is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from cryptostore.trust.cross_signing import Seeds
from homeserver_bed import Bed, Figure, met
from homeserver_client import Client

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

#: Seconds that every call to the database takes longer.
DELAY = 0.2


def test_a_sync_with_500_room_keys(bed: Bed, figure: Figure) -> None:
    talk, alice, bob = met(bed)
    before = set(talk.sent)
    talk.say_all(alice, *(f"message {number}" for number in range(500)), rotate=True)
    bob.call("watch", delay=DELAY)
    bob.call("sync")
    _assert_free(bob, figure)
    # Synapse gives at most 100 to-device messages with one answer.
    assert bob.call("statistics")["further_pages"] >= 4
    assert set(talk.sent) - before <= bob.texts().keys()
    assert talk.unreadable(bob) == []


def test_a_first_send_to_1000_devices(bed: Bed, figure: Figure) -> None:
    talk, alice, _ = met(bed, bob="stock")
    user, seeds = talk.bob.user, Seeds.new()
    bed.api.upload_identity(user.access_token, seeds.upload(user.user_id))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: bed.api.upload_keys(user, f"MANY{number}", seeds=seeds), range(1000)))
    alice.call("sync")
    assert len(alice.call("devices", user=talk.bob.user.user_id)) >= 1000
    # A new process has nothing of them in memory.
    alice.kill()
    alice = bed.start(talk.alice)
    alice.call("sync")
    alice.call("watch", delay=DELAY)
    talk.say(alice, "hello, everybody", rotate=True)
    _assert_free(alice, figure)
    assert alice.call("shared_with", room=talk.room) >= 1000


def _assert_free(client: Client, figure: Figure) -> None:
    watched = client.call("watched")
    figure(f"{watched['calls']} calls of {DELAY} s, the loop was held {watched['gap']:.3f} s at the longest")
    assert watched["calls"] > 0
    assert watched["on the loop"] == 0
    assert client.call("statistics")["loop_reads"] == 0


def test_a_stock_client_does_hold_its_loop_up(any_bed: Bed) -> None:
    talk, alice, bob = met(any_bed, "stock", "stock")
    talk.say_all(alice, "one", "two", rotate=True)
    bob.call("watch", delay=DELAY)
    bob.call("sync")
    watched = bob.call("watched")
    assert watched["on the loop"] > 0
    assert watched["gap"] > DELAY
