"""Everything that must end a verification: either side, time, what is wrong, and what comes out of turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cryptostore.trust import exchange_contents as contents
from cryptostore.trust.exchange import Exchange, Message, Phase
from cryptostore.trust.exchange_contents import Code
from exchange_line import ALICE, BOB, BOBS_KEYS, FLOWS, NOW, Change, Line
from odd_json import odd_versions


def test_an_older_client_that_begins_with_nonsense_is_refused() -> None:
    line = Line()
    line.bob.came_with_start({"from_device": ALICE.device_id})
    line.send(line.bob, line.bob.take())
    line.ends_with(Code.INVALID_MESSAGE)


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
