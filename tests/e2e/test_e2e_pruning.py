"""A client that deletes what is old while it talks: what was not meant is read for ever, also after a kill."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import pytest

from cryptostore import Account, Device, InboundGroupSession, Mode, OlmSession, Record, ReplayPage, open_backend
from homeserver_bed import Bed, Talk, met

R = TypeVar("R", bound=Record)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def stored(talk: Talk, kind: type[R]) -> list[R]:
    """What Bob's database holds."""
    config = talk.bob.config
    with (
        open_backend(config.store) as backend,
        backend.open_store(Account(config.user_id, config.device_id), Mode.READ, pickle_key=config.pickle_key) as store,
    ):
        return list(store.scan(kind))


def test_rooms_that_were_left_and_devices_that_are_gone(bed: Bed) -> None:
    talk, alice, bob = met(bed)
    # Alice has another device for a while, and a room with Bob that he leaves.
    other = bed.device_of(talk.alice.user)
    there = replace(talk, room=bed.api.encrypted_room(talk.alice.user, talk.bob.user), sent={})
    second = bed.start(other)
    for client in (second, alice, bob):
        client.call("sync")
    there.say_all(alice, "first", "second", rotate=True)
    there.say(second, "from another device")
    talk.say_all(alice, *(f"message {number}" for number in range(10)), rotate=True)
    bob.call("sync")
    second.kill()
    bed.api.delete_device(talk.alice.user, other.config.device_id)
    bed.api.leave(talk.bob.user, there.room)
    bob.call("sync")
    # Sessions that are not in the key backup would be kept.
    bob.call("back_up")
    bob.call("flush")
    rooms = [session.room_id for session in stored(talk, InboundGroupSession)]
    assert rooms.count(there.room) == 3

    # The first round notes which rooms were left.
    bob.call("prune", left_rooms=0)
    bob.call("flush")
    bob.call("arm", point="batch:before")
    bob.dies(bob.begin("prune", left_rooms=0, gone_devices=0))
    bob = bed.start(talk.bob)
    bob.call("sync")
    bob.call("prune", left_rooms=0, gone_devices=0)

    rooms = [session.room_id for session in stored(talk, InboundGroupSession)]
    assert rooms.count(there.room) == 0
    assert len(stored(talk, ReplayPage)) == len(rooms)
    devices = stored(talk, Device)
    assert other.config.device_id not in {device.device_id for device in devices}
    assert len({session.key[0] for session in stored(talk, OlmSession)}) == 1
    assert talk.unreadable(bob) == []
    talk.both_directions_work(alice, bob)
    assert talk.indices_used_twice() == 0
