"""A client comes back, on this host or another, and reads everything that it was ever sent."""

from __future__ import annotations

import pytest

from homeserver_bed import KEYS, Bed, met

pytestmark = pytest.mark.e2e


def test_six_steps(bed: Bed) -> None:
    # 1. It talks.
    talk, alice, bob = met(bed)
    talk.secrets(alice, "before")
    bob.call("sync")
    talk.say_all(bob, "an answer", "and another")
    known = bob.call("devices", user=talk.alice.user.user_id)
    # 2. Everything is saved, and the process ends.
    bob.call("close")
    bob.kill()
    # 3. A new process starts on the same database.
    bob = bed.spawn(talk.bob)
    identity = bob.call("start")
    # 4. It is who it was, and knows whom it knew.
    assert identity["device_id"] == talk.bob.config.device_id
    server_knows = bed.api.device_keys(talk.alice.user, talk.bob.user)[identity["device_id"]]["keys"]
    assert server_knows == {f"{name}:{identity['device_id']}": key for name, key in identity["keys"].items()}
    bob.call("sync")
    assert bob.call("devices", user=talk.alice.user.user_id) == known
    # 5. It reads the old messages.
    assert talk.unreadable(bob) == []
    # 6. It reads new ones, and is read.
    talk.both_directions_work(alice, bob)
    alice.call("sync")
    assert talk.unreadable(alice) == []
    assert talk.indices_used_twice() == 0


def test_a_second_host_needs_only_the_url_and_the_pickle_key(bed: Bed) -> None:
    talk, alice, bob = met(bed)
    first = bob.call("identity")
    bob.kill()
    talk.secrets(alice, "while Bob moves")
    # No device id, no password, no file of the first host.
    bob = bed.spawn(talk.bob, device_id="", password="", access_token="")
    assert bob.call("start") == first
    bob.call("sync")
    assert talk.unreadable(bob) == []
    talk.both_directions_work(alice, bob)
    assert talk.indices_used_twice() == 0


def test_what_was_sent_while_bob_was_down_is_read(bed: Bed) -> None:
    talk, alice, bob = met(bed)
    bob.kill()
    talk.secrets(alice, "while Bob was down")
    bob = bed.start(talk.bob)
    bob.call("sync")
    read = bob.texts()
    missing = [text for event_id, text in talk.sent.items() if text.startswith("while") and read.get(event_id) != text]
    assert missing == []
    assert talk.unreadable(bob) == []


def test_a_restart_goes_on_in_the_same_megolm_session(bed: Bed) -> None:
    talk, alice, bob = met(bed)
    before = alice.call("outbound", room=talk.room)
    alice.kill()
    alice = bed.start(talk.alice)
    alice.call("sync")
    talk.both_directions_work(alice, bob)
    assert alice.call("outbound", room=talk.room) == before
    assert talk.unreadable(bob) == []
    assert talk.indices_used_twice() == 0


def test_a_session_is_rotated_in_time_though_a_restart_came_between(bed: Bed) -> None:
    talk, alice, bob = met(bed)
    before = alice.call("outbound", room=talk.room)
    # matrix-nio rotates after 100 messages.
    talk.say_all(alice, *(f"early {number}" for number in range(KEYS)))
    alice.kill()
    alice = bed.start(talk.alice)
    alice.call("sync")
    talk.say_all(alice, *(f"late {number}" for number in range(KEYS)))
    events = bed.api.timeline(talk.bob.user, talk.room)
    used = [each["content"].get("session_id") for each in events if each["sender"] == talk.alice.user.user_id]
    assert used.count(before) == 100
    bob.call("sync")
    assert talk.unreadable(bob) == []
    assert talk.indices_used_twice() == 0


def test_a_device_that_was_blacklisted_before_a_restart_reads_nothing_after_it(bed: Bed) -> None:
    talk, alice, bob = met(bed)
    alice.call("trust", user=talk.bob.user.user_id, device=talk.bob.config.device_id, how="blacklist")
    alice.call("flush")
    alice.kill()
    alice = bed.start(talk.alice)
    alice.call("sync")
    hidden = alice.call("send", room=talk.room, text="not for Bob")
    bob.call("sync")
    assert bob.call("history", room=talk.room)[hidden] is None
    assert alice.call("history", room=talk.room)[hidden] == "not for Bob"
    # That alone kept it from him.
    alice.call("trust", user=talk.bob.user.user_id, device=talk.bob.config.device_id, how="unblacklist")
    talk.both_directions_work(alice, bob)
    assert talk.indices_used_twice() == 0


def test_a_device_that_was_deleted_while_we_were_down_gets_no_more_messages(bed: Bed) -> None:
    talk, alice, bob = met(bed)
    before = alice.call("outbound", room=talk.room)
    alice.kill()
    bed.api.delete_device(talk.bob.user, talk.bob.config.device_id)
    bob.kill()
    alice = bed.start(talk.alice)
    alice.call("sync")
    alice.call("send", room=talk.room, text="in a session that the deleted device never had")
    assert talk.bob.config.device_id not in alice.call("devices", user=talk.bob.user.user_id)
    assert alice.call("outbound", room=talk.room) not in (None, before)
    assert talk.indices_used_twice() == 0


def test_drained_one_time_keys_are_replenished(bed: Bed) -> None:
    talk, alice, bob = met(bed)
    bob.kill()
    stranger = bed.api.register("stranger")
    taken = set()
    # The last one is the fallback key, which goes to everybody from then on; its id may be that of a one-time key.
    while (key := bed.api.claim_one_time_key(stranger, talk.bob.user, talk.bob.config.device_id)) not in taken:
        taken.add(key)
    assert len(taken) >= 50
    bob = bed.start(talk.bob)
    for _ in range(2):
        bob.call("sync")
    new = bed.api.claim_one_time_key(stranger, talk.bob.user, talk.bob.config.device_id)
    assert new is not None
    assert new not in taken
    talk.both_directions_work(alice, bob)
