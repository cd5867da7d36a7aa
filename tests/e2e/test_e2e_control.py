"""The control: what the tests of kills look for happens to matrix-nio on its own store, so they are not blind."""

from __future__ import annotations

import pytest

from homeserver_api import indices_used_twice
from homeserver_bed import KEYS, Bed, Figure, met

pytestmark = pytest.mark.e2e


def test_nio_on_its_own_store_loses_every_key_of_a_sync_that_it_is_killed_in(any_bed: Bed, figure: Figure) -> None:
    talk, alice, bob = met(any_bed, "nio", "nio")
    talk.secrets(alice, "secret")
    bob.call("arm", point="to-device:before")
    bob.dies(bob.begin("sync"))

    bob = any_bed.start(talk.bob)
    for _ in range(3):
        bob.call("sync")
    lost = talk.unreadable(bob)
    figure(f"{len(lost)} of {KEYS} keys lost in 1 kill, at the point where the token is saved and no key is")
    assert len(lost) == KEYS


def test_nio_on_its_own_store_reads_the_same_messages_when_it_is_left_alone(any_bed: Bed) -> None:
    talk, alice, bob = met(any_bed, "nio", "nio")
    talk.secrets(alice, "secret")
    bob.call("sync")
    assert talk.unreadable(bob) == []
    # And a message index that is used twice would be seen.
    timeline = any_bed.api.timeline(talk.bob.user, talk.room)
    assert indices_used_twice(timeline) == 0
    assert indices_used_twice([*timeline, timeline[-1]]) == 1


def test_a_stock_client_on_our_store_meets_talks_and_returns(bed: Bed) -> None:
    talk, alice, bob = met(bed, "stock", "stock")
    bob.kill()
    talk.secrets(alice, "while Bob was away")
    bob = bed.start(talk.bob)
    bob.call("sync")
    assert talk.unreadable(bob) == []
    assert talk.indices_used_twice() == 0
