"""Two verifications that talk to each other: every order that there is, and everything that must end them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptostore.trust import exchange_contents as contents
from cryptostore.trust.exchange import Exchange, Message, Phase, WrongPhase
from cryptostore.trust.exchange_contents import Code, Flow
from cryptostore.trust.sas import DeviceId, EphemeralKey, key_ids
from odd_json import odd_versions

ALICE: Final = DeviceId("@alice:example.org", "ALICEDEVICE")
BOB: Final = DeviceId("@bob:example.org", "BOBDEVICE")
ALICES_KEYS: Final = key_ids(ALICE, "alice's device key", "alicesmaster")
BOBS_KEYS: Final = key_ids(BOB, "bob's device key", "bobsmaster")
FLOWS: Final = (Flow("transaction", is_in_room=False), Flow("$request", is_in_room=True))
NOW: Final = 1_000.0
#: Takes the first message of a kind, on its way.
Change = Callable[[dict[str, Any]], None]


class Line:
    """Two sides, and what is under way between them, in order for each direction."""

    def __init__(self, flow: Flow = FLOWS[0], alice: DeviceId = ALICE, bob: DeviceId = BOB) -> None:
        times = {"asked_at": NOW, "now": NOW}
        self.alice = Exchange(flow, alice, ALICES_KEYS, DeviceId(bob.user_id, ""), we_asked=True, **times)
        self.bob = Exchange(flow, bob, BOBS_KEYS, alice, we_asked=False, **times)
        self.alice.know(BOBS_KEYS)
        self.bob.know(ALICES_KEYS)
        self.under_way: dict[Exchange, list[Message]] = {self.alice: [], self.bob: []}
        self.sent: list[tuple[str, str]] = []
        self.changes: dict[str, Change] = {}

    def send(self, sender: Exchange, messages: list[Message]) -> None:
        receiver = self.bob if sender is self.alice else self.alice
        for kind, content in messages:
            self.sent.append((sender.own.user_id[1:].split(":")[0], kind.removeprefix(contents.PREFIX)))
            # As on the wire.
            copy = json.loads(json.dumps(content))
            if change := self.changes.pop(kind, None):
                change(copy)
            self.under_way[receiver].append(Message(kind, copy))

    def deliver(self, receiver: Exchange) -> None:
        message = self.under_way[receiver].pop(0)
        self.send(receiver, receiver.receive(*message))

    def settle(self) -> None:
        while any(self.under_way.values()):
            for receiver, waiting in self.under_way.items():
                if waiting:
                    self.deliver(receiver)

    def until_comparing(self) -> None:
        self.send(self.bob, self.bob.take())
        self.settle()
        if self.alice.phase is Phase.READY:
            self.send(self.alice, self.alice.start())
            self.settle()

    def until_verified(self) -> None:
        self.until_comparing()
        for each in (self.alice, self.bob):
            if each.phase is Phase.COMPARING:
                self.send(each, each.confirm())
                self.settle()

    def ends_with(self, code: Code) -> None:
        """Both have ended with this code, which one of them gave."""
        self.settle()
        for each in (self.alice, self.bob):
            assert each.cancellation is not None
            assert (each.phase, each.cancellation.code) == (Phase.CANCELLED, code)
        assert {each.cancellation.by_us for each in (self.alice, self.bob) if each.cancellation} == {True, False}
        assert not self.alice.receive(contents.KEY, {})
        assert not self.bob.cancel()


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


def test_an_older_client_that_begins_with_nonsense_is_refused() -> None:
    line = Line()
    line.bob.came_with_start({"from_device": ALICE.device_id})
    line.send(line.bob, line.bob.take())
    line.ends_with(Code.INVALID_MESSAGE)


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


@pytest.mark.parametrize("steps", range(9))
@pytest.mark.parametrize("canceller", ["alice", "bob"])
def test_either_side_can_cancel_at_every_step(steps: int, canceller: str) -> None:
    line = Line()
    actions: list[Callable[[], None]] = [
        lambda: line.send(line.bob, line.bob.take()),
        line.settle,
        lambda: line.send(line.alice, line.alice.start()),
        line.settle,
        lambda: line.send(line.alice, line.alice.confirm()),
        line.settle,
        lambda: line.send(line.bob, line.bob.confirm()),
        line.settle,
    ]
    for action in actions[:steps]:
        action()
    each: Exchange = getattr(line, canceller)
    line.send(each, each.cancel(Code.MISMATCHED_SAS))
    line.ends_with(Code.MISMATCHED_SAS)


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_a_reason(code: Code) -> None:
    line = Line()
    line.send(line.alice, line.alice.cancel(code))
    line.ends_with(code)
    assert line.bob.cancellation is not None
    assert len(line.bob.cancellation.reason) > 10


@pytest.mark.parametrize("said", [{}, {"code": 1, "reason": []}, {"code": None}])
def test_a_cancellation_without_words_is_one(said: dict[str, Any]) -> None:
    line = Line()
    line.bob.receive(contents.CANCEL, said)
    assert line.bob.cancellation == ("", "", False)


def test_a_cancellation_of_many_words_is_cut() -> None:
    line = Line()
    line.bob.receive(contents.CANCEL, {"code": "x" * 1000, "reason": "y" * 1000})
    assert line.bob.cancellation == ("x" * 255, "y" * 255, False)


def set_to(**changes: Any) -> Change:
    return lambda content: content.update(changes)


def without(name: str) -> Change:
    return lambda content: content.pop(name)


def damage(name: str) -> Change:
    return lambda content: content.update({name: "A" + content[name][1:] if content[name][0] != "A" else "B"})


def damage_a_mac(content: dict[str, Any]) -> None:
    content["mac"] = dict.fromkeys(content["mac"], "A" * 43)


def hide_a_key(content: dict[str, Any]) -> None:
    content["mac"].popitem()


def rename_the_keys(content: dict[str, Any]) -> None:
    content["mac"] = {f"ed25519:other{number}": mac for number, mac in enumerate(content["mac"].values())}


@pytest.mark.parametrize(
    ("kind", "change", "code"),
    [
        (contents.READY, set_to(methods=["m.reciprocate.v1"]), Code.UNKNOWN_METHOD),
        (contents.READY, set_to(methods="m.sas.v1"), Code.INVALID_MESSAGE),
        (contents.READY, without("from_device"), Code.INVALID_MESSAGE),
        (contents.START, set_to(method="m.reciprocate.v1"), Code.UNKNOWN_METHOD),
        (contents.START, set_to(hashes=["sha1"]), Code.UNKNOWN_METHOD),
        (contents.START, set_to(hashes=[{}, 1]), Code.UNKNOWN_METHOD),
        (contents.START, set_to(key_agreement_protocols=["curve25519"]), Code.UNKNOWN_METHOD),
        (contents.START, set_to(message_authentication_codes=["hmac-sha256"]), Code.UNKNOWN_METHOD),
        (contents.START, set_to(short_authentication_string=["interpretive dance"]), Code.UNKNOWN_METHOD),
        (contents.START, without("hashes"), Code.INVALID_MESSAGE),
        (contents.START, set_to(more=1.5), Code.INVALID_MESSAGE),
        (contents.START, set_to(from_device="ANOTHER"), Code.UNEXPECTED_MESSAGE),
        # It was not what Alice sent.
        (contents.START, set_to(hashes=["sha256", "sha1"]), Code.MISMATCHED_COMMITMENT),
        (contents.ACCEPT, set_to(hash="sha1"), Code.UNKNOWN_METHOD),
        (contents.ACCEPT, set_to(key_agreement_protocol="curve25519"), Code.UNKNOWN_METHOD),
        (contents.ACCEPT, set_to(message_authentication_code="hmac-sha256"), Code.UNKNOWN_METHOD),
        (contents.ACCEPT, set_to(short_authentication_string=[]), Code.UNKNOWN_METHOD),
        (contents.ACCEPT, damage("commitment"), Code.MISMATCHED_COMMITMENT),
        (contents.ACCEPT, set_to(commitment=""), Code.INVALID_MESSAGE),
        (contents.ACCEPT, set_to(commitment="\ud800"), Code.INVALID_MESSAGE),
        (contents.ACCEPT, set_to(commitment="x" * 256), Code.INVALID_MESSAGE),
        (contents.KEY, set_to(key="no key"), Code.INVALID_MESSAGE),
        (contents.KEY, set_to(key="A" * 43), Code.INVALID_MESSAGE),
        (contents.KEY, set_to(key=7), Code.INVALID_MESSAGE),
        (contents.MACS, damage_a_mac, Code.KEY_MISMATCH),
        (contents.MACS, damage("keys"), Code.KEY_MISMATCH),
        (contents.MACS, hide_a_key, Code.KEY_MISMATCH),
        (contents.MACS, rename_the_keys, Code.KEY_MISMATCH),
        (contents.MACS, set_to(mac={}), Code.INVALID_MESSAGE),
        (contents.MACS, set_to(mac=[]), Code.INVALID_MESSAGE),
        (contents.MACS, set_to(mac={"ed25519:x": 1}), Code.INVALID_MESSAGE),
        (contents.MACS, set_to(mac={"\ud800": "x"}), Code.INVALID_MESSAGE),
        (contents.MACS, set_to(mac={f"ed25519:{number}": "x" for number in range(51)}), Code.INVALID_MESSAGE),
        (contents.MACS, without("keys"), Code.INVALID_MESSAGE),
    ],
)
def test_what_is_wrong_ends_it_with_its_code(kind: str, change: Change, code: Code) -> None:
    line = Line()
    line.changes[kind] = change
    line.until_verified()
    line.ends_with(code)
    assert not line.changes


@pytest.mark.parametrize(
    "kind",
    [contents.READY, contents.START, contents.ACCEPT, contents.KEY, contents.MACS, contents.DONE, contents.CANCEL],
)
def test_whatever_comes_is_taken_refused_or_left_alone(kind: str) -> None:
    sent = run_to_the_end(Line(), kind)
    for odd in odd_versions(sent):
        if isinstance(odd, dict):
            line = Line()
            run_to_the_end(line, kind, odd)
            assert line.alice.has_ended
            assert line.bob.has_ended


def run_to_the_end(line: Line, kind: str, instead: dict[str, Any] | None = None) -> dict[str, Any]:
    """Finish, or cancel, with another content for the first event of a kind; what was sent in its place."""
    sent: dict[str, Any] = {}

    def replace(content: dict[str, Any]) -> None:
        sent.update(content)
        if instead is not None:
            content.clear()
            content.update(instead)

    line.changes[kind] = replace
    line.until_verified()
    for each in (line.alice, line.bob):
        line.send(each, each.finish() if each.phase is Phase.VERIFIED else each.cancel())
        line.settle()
    return sent


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


def test_another_device_key_ends_it() -> None:
    line = Line()
    line.alice.know({**BOBS_KEYS, "ed25519:BOBDEVICE": "another"})
    line.until_verified()
    line.ends_with(Code.KEY_MISMATCH)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (contents.READY, contents.ready(ALICE.device_id)),
        (contents.START, contents.start(ALICE.device_id)),
        (contents.ACCEPT, {}),
        (contents.KEY, {"key": "x"}),
        (contents.MACS, {}),
        (contents.DONE, {}),
    ],
)
def test_what_comes_before_the_request_is_taken_ends_it(kind: str, content: dict[str, Any]) -> None:
    line = Line()
    line.send(line.alice, [Message(kind, content)])
    line.ends_with(Code.UNEXPECTED_MESSAGE)


@pytest.mark.parametrize("kind", [contents.START, contents.ACCEPT, contents.KEY, contents.MACS, contents.DONE])
def test_a_second_one_that_differs_ends_it(kind: str) -> None:
    line = Line()
    line.until_comparing()
    line.send(line.alice, line.alice.confirm())
    line.settle()
    line.send(line.alice, [Message(kind, {"from_device": ALICE.device_id, "changed": 1})])
    line.ends_with(Code.UNEXPECTED_MESSAGE)


def test_both_start_with_methods_that_differ() -> None:
    line = Line()
    line.send(line.bob, line.bob.take())
    line.settle()
    line.send(line.alice, line.alice.start())
    line.send(line.bob, [Message(contents.START, {"from_device": BOB.device_id, "method": "m.reciprocate.v1"})])
    line.deliver(line.alice)
    line.ends_with(Code.UNEXPECTED_MESSAGE)


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


def test_a_request_waits_two_minutes_for_a_person_and_ten_for_the_end() -> None:
    line = Line()
    assert (line.alice.expires_at, line.bob.expires_at) == (NOW + 600, NOW + 120)
    line.send(line.bob, line.bob.take())
    assert line.bob.expires_at == NOW + 600
    assert line.bob.expire(NOW + 599) == []
    line.send(line.bob, line.bob.expire(NOW + 600))
    line.ends_with(Code.TIMEOUT)


def test_nobody_took_the_request() -> None:
    line = Line()
    line.send(line.bob, line.bob.expire(NOW + 120))
    line.ends_with(Code.TIMEOUT)
    assert line.bob.expire(NOW + 600) == []


def test_the_time_of_the_request_counts_unless_it_is_to_come() -> None:
    def expiry(asked_at: float) -> float:
        exchange = Exchange(FLOWS[0], BOB, BOBS_KEYS, ALICE, we_asked=False, asked_at=asked_at, now=NOW)
        return exchange.expires_at

    assert expiry(NOW - 550) == NOW + 50
    assert expiry(NOW - 100) == NOW + 120
    exchange = Exchange(FLOWS[0], BOB, BOBS_KEYS, ALICE, we_asked=False, asked_at=NOW + 300, now=NOW)
    exchange.take()
    assert exchange.expires_at == NOW + 600


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
