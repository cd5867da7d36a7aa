"""What strangers on the network send to a device: it holds nothing up, and nothing beside it is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from homeserver_bed import Bed, Talk, met
from homeserver_proxy import Answer, HomeserverProxy, PassOn

pytestmark = pytest.mark.e2e

_OLM = "m.olm.v1.curve25519-aes-sha2"
_MEGOLM = "m.megolm.v1.aes-sha2"

#: Events that no homeserver should pass on.
NO_EVENTS: list[Any] = [
    {},
    {"type": 5, "sender": None, "content": []},
    {"type": "m.room.encrypted", "sender": "@nobody:test.invalid", "content": "text"},
    {"type": "m.room.encrypted", "content": {"algorithm": _OLM}},
    {"type": "m.room_key", "sender": "no user id", "content": {"algorithm": _MEGOLM, "room_id": 5}},
]

IMPOSSIBLE_ROOMS = ["!nul\0:test.invalid", "!" + 9_000 * "x", "!" + 255 * "ß", "\ud800", ""]


def _malformed(talk: Talk, bob_key: str, alice_key: str) -> list[tuple[str, dict[str, Any]]]:
    """What a stranger can send through a homeserver that looks at nothing."""
    messages = [5, {}, {"type": 0}, {"type": 0, "body": "AAAA"}, {"type": 1, "body": "AAAA"}, {"type": 7, "body": "?"}]
    messages += [{"type": 1, "body": "\0"}, {"type": "0", "body": ["AAAA"]}]
    for_bob = [{bob_key: message} for message in messages]
    sealed = [
        {"algorithm": _OLM, "sender_key": key, "ciphertext": ciphertext}
        for key in (alice_key, "no key", "\0", 9_000 * "k")
        for ciphertext in (*for_bob, {}, {"no key": {"type": 0, "body": "AAAA"}})
    ]
    room_key = {"algorithm": _MEGOLM, "room_id": talk.room, "session_id": "\0", "session_key": "AAAA"}
    request = {"action": "request", "requesting_device_id": "\0", "request_id": 9_000 * "r"}
    body = {"algorithm": _MEGOLM, "room_id": "!nul\0", "sender_key": alice_key, "session_id": "s"}
    return [
        ("m.room.encrypted", {}),
        ("m.room.encrypted", {"algorithm": 5}),
        ("m.room.encrypted", {"algorithm": _MEGOLM, "sender_key": alice_key, "session_id": "s", "ciphertext": "AA"}),
        *(("m.room.encrypted", content) for content in sealed),
        ("m.room_key", room_key),
        ("m.forwarded_room_key", room_key | {"sender_key": alice_key, "forwarding_curve25519_key_chain": 5}),
        ("m.room_key_request", request),
        ("m.room_key_request", request | {"body": body}),
        ("m.room_key_request", {"action": "request_cancellation", "requesting_device_id": 5, "request_id": {}}),
        ("m.key.verification.start", {"from_device": "\0", "transaction_id": 5}),
        ("m.key.verification.mac", {"transaction_id": "t", "mac": [], "keys": None}),
    ]


def test_malformed_to_device_events_hold_no_room_key_up(any_bed: Bed, proxy: HomeserverProxy) -> None:
    talk, alice, bob = met(any_bed)
    keys = [client.call("identity")["keys"]["curve25519"] for client in (bob, alice)]
    bob.kill()
    stranger = any_bed.api.register("stranger")
    for kind, content in _malformed(talk, *keys):
        # From a stranger, and from a user who is trusted.
        for sender in (stranger, talk.alice.user):
            any_bed.api.send_to_device(sender, kind, talk.bob.user, talk.bob.config.device_id, content)
    talk.say_all(alice, *(f"secret {number}" for number in range(10)), rotate=True)

    left = list(NO_EVENTS)

    def add_no_events(pass_on: PassOn) -> Answer:
        answer = json.loads(pass_on().body)
        answer.setdefault("to_device", {}).setdefault("events", [])[0:0] = left
        left.clear()
        return Answer.of(answer)

    with proxy.fault("/sync", add_no_events):
        bob = any_bed.start(talk.bob, homeserver=proxy.url)
        # Synapse gives at most 100 to-device messages with one sync.
        for _ in range(3):
            bob.call("sync")
    assert bob.call("statistics")["poisoned_events"] > 0
    assert talk.unreadable(bob) == []
    bob.kill()
    bob = any_bed.start(talk.bob)
    bob.call("sync")
    assert talk.unreadable(bob) == []
    talk.both_directions_work(alice, bob)
    assert talk.indices_used_twice() == 0


def test_room_keys_for_impossible_rooms_hold_the_others_not_up(bed: Bed) -> None:
    talk, alice, bob = met(bed)
    names = {"user": talk.bob.user.user_id, "device": talk.bob.config.device_id}
    beside = {f"beside {room[:20]!a}": room for room in IMPOSSIBLE_ROOMS}
    for text, room in beside.items():
        alice.call("send_room_key", **names, room=room)
        talk.say(alice, text, rotate=True)
    bob.call("sync")
    # Read in the very sync that brought their keys.
    assert {text for text in bob.texts().values() if text.startswith("beside")} == set(beside)
    bob.kill()
    bob = bed.start(talk.bob)
    bob.call("sync")
    assert talk.unreadable(bob) == []
    talk.both_directions_work(alice, bob)
    assert talk.indices_used_twice() == 0
