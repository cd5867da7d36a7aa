"""The demo's homeserver: what it delivers again, and what it forgets."""

from __future__ import annotations

from typing import Any

from cryptostore.cli.demo.relay import WINDOW, Relay

ALICE, BOB = "@alice:localhost", "@bob:localhost"


def relay() -> Relay:
    return Relay("!room:localhost", [ALICE, BOB])


def send(to: Relay, count: int, first: int = 0) -> list[str]:
    return [to.send_event(ALICE, str(number), {"number": number}) for number in range(first, first + count)]


def event_ids(delivery: dict[str, Any]) -> list[str]:
    return [event["event_id"] for event in delivery["timeline"]]


def test_what_is_not_acknowledged_is_delivered_again() -> None:
    server = relay()
    sent = send(server, 2)
    first = server.deliver(BOB)
    assert event_ids(first) == sent
    assert server.deliver(BOB) == first
    server.acknowledge(BOB, "")
    assert server.deliver(BOB) == first


def test_what_is_acknowledged_is_forgotten() -> None:
    server = relay()
    send(server, 2)
    server.acknowledge(BOB, server.deliver(BOB)["next_batch"])
    empty = server.deliver(BOB)
    assert (empty["timeline"], empty["to_device"]) == ([], [])
    later = send(server, 1, first=2)
    assert event_ids(server.deliver(BOB)) == later


def test_a_sync_holds_at_most_one_window_in_order() -> None:
    server = relay()
    sent = send(server, WINDOW + 2)
    first = server.deliver(BOB)
    assert event_ids(first) == sent[:WINDOW]
    server.acknowledge(BOB, first["next_batch"])
    assert event_ids(server.deliver(BOB)) == sent[WINDOW:]


def test_a_to_device_message_reaches_its_recipient_alone_and_before_what_it_opens() -> None:
    server = relay()
    server.send_to_device(ALICE, {BOB: {"PHONE": {"ciphertext": "room key"}}})
    send(server, WINDOW)
    assert server.deliver(BOB)["to_device"] == [
        {"type": "m.room.encrypted", "sender": ALICE, "content": {"ciphertext": "room key"}}
    ]
    assert len(server.deliver(BOB)["timeline"]) == WINDOW - 1
    assert server.deliver(ALICE)["to_device"] == []


def test_a_message_that_is_sent_twice_is_one_event() -> None:
    server = relay()
    assert send(server, 1) == send(server, 1)
    assert len(server.timeline) == 1


def test_messages_of_the_user_are_not_waiting_for_the_user() -> None:
    server = relay()
    send(server, 3)
    assert server.unacknowledged_messages(BOB) == 3
    assert server.unacknowledged_messages(ALICE) == 0


def test_a_client_that_forgot_is_noticed() -> None:
    server = relay()
    send(server, 3)
    server.acknowledge(BOB, "2")
    server.acknowledge(BOB, "1")
    assert server.mailboxes[BOB].went_back == 1
    assert server.unacknowledged_messages(BOB) == 1


def test_the_history_ends_at_the_position_of_the_reader() -> None:
    server = relay()
    sent = send(server, 3)
    assert [event["event_id"] for event in server.history("2")] == sent[:2]
    assert server.history("") == []


def test_a_one_time_key_is_handed_out_once() -> None:
    server = relay()
    server.upload_keys(BOB, "PHONE", {"device_keys": {}, "one_time_keys": {"a": 1, "b": 2}})
    claimed = [server.claim_keys({BOB: ["PHONE"]})["one_time_keys"][BOB]["PHONE"] for _ in range(2)]
    assert sorted(key for each in claimed for key in each) == ["a", "b"]
