"""Two verifications that talk to each other, in every order that there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptostore.trust import exchange_contents as contents
from cryptostore.trust.exchange import Exchange, Phase, WrongPhase
from cryptostore.trust.exchange_contents import Code, Flow
from cryptostore.trust.sas import DeviceId, EphemeralKey
from exchange_line import ALICE, ALICES_KEYS, BOB, BOBS_KEYS, FLOWS, NOW, Line


def test_the_order_of_what_is_sent() -> None:
    line = Line()
    line.until_verified()
    for each in (line.bob, line.alice):
        line.send(each, each.finish())
    line.settle()
    assert line.sent == [
        ("bob", "ready"),
        ("alice", "start"),
        ("bob", "accept"),
        ("alice", "key"),
        ("bob", "key"),
        ("alice", "mac"),
        ("bob", "mac"),
        ("bob", "done"),
        ("alice", "done"),
    ]


@pytest.mark.parametrize("flow", FLOWS)
@given(st.data())
def test_both_see_the_same_and_verify_all_keys_whoever_starts(flow: Flow, data: st.DataObject) -> None:
    line = Line(flow)
    line.send(line.bob, line.bob.take())
    line.settle()
    # One starts, or the other, or both at once; then any order of deliveries, confirmations and dones.
    starters = data.draw(st.sampled_from([[line.alice], [line.bob], [line.alice, line.bob], [line.bob, line.alice]]))
    for starter in starters:
        line.send(starter, starter.start())
    while not (line.alice.has_ended and line.bob.has_ended):
        steps: list[Callable[[], None]] = [
            lambda each=each: line.deliver(each)  # type: ignore[misc]  # the default binds it
            for each, waiting in line.under_way.items()
            if waiting
        ]
        for each in (line.alice, line.bob):
            if each.phase is Phase.COMPARING and each not in confirmed(line):
                steps.append(lambda each=each: line.send(each, each.confirm()))  # type: ignore[misc]
            if each.phase is Phase.VERIFIED:
                steps.append(lambda each=each: line.send(each, each.finish()))  # type: ignore[misc]
        data.draw(st.sampled_from(steps))()
    assert (line.alice.phase, line.bob.phase) == (Phase.DONE, Phase.DONE)
    assert line.alice.short_auth == line.bob.short_auth
    assert line.alice.short_auth is not None
    assert len(line.alice.short_auth.emoji) == 7
    assert [line.alice.verified, line.bob.verified] == [frozenset(BOBS_KEYS), frozenset(ALICES_KEYS)]


def confirmed(line: Line) -> list[Exchange]:
    users = [user for user, kind in line.sent if kind == "mac"]
    return [each for each, name in ((line.alice, "alice"), (line.bob, "bob")) if name in users]


@pytest.mark.parametrize("flow", FLOWS)
def test_everything_says_which_verification_it_is_of(flow: Flow) -> None:
    relation = {"rel_type": "m.reference", "event_id": "$request"}
    expected = {"m.relates_to": relation} if flow.is_in_room else {"transaction_id": "transaction"}
    line = Line(flow)
    seen = [*line.bob.take(), *line.alice.cancel()]
    assert [{name: content[name] for name in expected} for _, content in seen] == [expected] * 2
    assert all(len(content) == 3 for _, content in seen)


def test_an_older_client_begins_with_start() -> None:
    line = Line()
    line.alice.receive(contents.READY, contents.ready(BOB.device_id))
    (start,) = line.alice.start()
    line.bob.came_with_start(start.content)
    line.until_comparing()
    assert [kind for _, kind in line.sent] == ["accept", "key", "key"]
    assert line.alice.short_auth == line.bob.short_auth is not None


def test_a_client_without_the_newer_macs_and_without_emoji() -> None:
    line = Line()
    line.send(line.bob, line.bob.take())
    line.settle()
    (start,) = line.alice.start()
    start.content.update(
        message_authentication_codes=["hmac-sha256", "hkdf-hmac-sha256"], short_authentication_string=["decimal"]
    )
    line.send(line.alice, [start])
    line.settle()
    assert line.alice.short_auth == line.bob.short_auth
    assert line.bob.short_auth is not None
    assert line.bob.short_auth.emoji == ()
    line.send(line.alice, line.alice.confirm())
    line.send(line.bob, line.bob.confirm())
    line.settle()
    assert line.alice.phase is line.bob.phase is Phase.VERIFIED


def test_one_device_of_several_takes_the_request() -> None:
    line = Line()
    line.send(line.bob, line.bob.take())
    line.settle()
    assert line.alice.receive(contents.READY, contents.ready("ANOTHER")) == []
    assert line.alice.other == BOB
    line.send(line.alice, line.alice.start())
    assert line.alice.receive(contents.READY, contents.ready("A THIRD")) == []
    line.settle()
    assert line.alice.short_auth == line.bob.short_auth is not None


def test_another_device_than_the_one_that_was_asked_takes_nothing() -> None:
    alice = Exchange(FLOWS[0], ALICE, ALICES_KEYS, BOB, we_asked=True, asked_at=NOW, now=NOW)
    assert alice.receive(contents.READY, contents.ready("ANOTHER")) == []
    with pytest.raises(WrongPhase):
        alice.start()
    alice.receive(contents.READY, contents.ready(BOB.device_id))
    assert alice.start()


def test_a_sibling_took_the_request() -> None:
    line = Line()
    line.bob.taken_by_another()
    assert line.bob.cancellation is not None
    assert line.bob.cancellation.code == Code.ACCEPTED
    line.bob.taken_by_another()
    with pytest.raises(WrongPhase):
        line.bob.take()


def test_what_came_twice_counts_once() -> None:
    line = Line()
    line.until_comparing()
    (macs,) = line.alice.confirm()
    for _ in range(2):
        assert line.bob.receive(*macs) == []
    line.send(line.bob, line.bob.confirm())
    line.settle()
    assert line.alice.phase is line.bob.phase is Phase.VERIFIED
    (done,) = line.alice.finish()
    for _ in range(2):
        assert line.bob.receive(*done) == []
    assert line.bob.phase is Phase.VERIFIED


def test_unknown_kinds_of_events_are_left_alone() -> None:
    line = Line()
    assert line.bob.receive(contents.PREFIX + "later", {}) == []
    assert line.bob.phase is Phase.REQUESTED


def test_another_key_of_the_starter_is_seen_by_the_people() -> None:
    # Nothing binds the starter to its key but what both read out.
    line = Line()
    mallory = EphemeralKey()

    def is_alices(content: dict[str, Any]) -> None:
        content["key"] = mallory.public

    line.changes[contents.KEY] = is_alices
    line.until_comparing()
    assert line.alice.phase is line.bob.phase is Phase.COMPARING
    assert line.alice.short_auth != line.bob.short_auth


def test_keys_that_are_not_known_here_verify_nothing() -> None:
    line = Line()
    line.alice.know({"ed25519:BOBDEVICE": BOBS_KEYS["ed25519:BOBDEVICE"], "ed25519:newmaster": "newmaster"})
    line.until_verified()
    assert line.alice.phase is Phase.VERIFIED
    assert line.alice.verified == {"ed25519:BOBDEVICE"}


def test_of_two_devices_of_one_user_the_smaller_starts() -> None:
    first, second = DeviceId(ALICE.user_id, "A"), DeviceId(ALICE.user_id, "B")
    line = Line(alice=second, bob=first)
    line.bob.know(ALICES_KEYS)
    line.send(line.bob, line.bob.take())
    line.settle()
    for each in (line.alice, line.bob):
        line.send(each, each.start())
    line.settle()
    assert line.alice.phase is line.bob.phase is Phase.COMPARING
    assert line.alice.short_auth == line.bob.short_auth


def test_nothing_can_be_done_out_of_turn() -> None:
    line = Line()
    for call in (line.alice.take, line.alice.start, line.alice.confirm, line.alice.finish, line.bob.start):
        with pytest.raises(WrongPhase):
            call()
    line.until_comparing()
    line.alice.confirm()
    for call in (line.alice.confirm, line.alice.start, line.bob.take, line.bob.finish):
        with pytest.raises(WrongPhase):
            call()


def test_requests_say_what_is_asked() -> None:
    assert contents.request("DEVICE", 5) == {"from_device": "DEVICE", "methods": ["m.sas.v1"], "timestamp": 5}
    asked = contents.room_request("DEVICE", BOB.user_id)
    assert asked.pop("body")
    assert asked == {
        "msgtype": "m.key.verification.request",
        "from_device": "DEVICE",
        "methods": ["m.sas.v1"],
        "to": BOB.user_id,
    }
