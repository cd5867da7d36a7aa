"""What was sent while a bot was down, on a homeserver that sends ten events a room by itself."""

from __future__ import annotations

from collections import Counter

import pytest

from homeserver_api import User
from homeserver_backlog import Backlog, answering, backlog, met_bot
from homeserver_bed import Bed, Talk, met
from homeserver_client import Client
from homeserver_example import ExampleBot

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.mark.parametrize(("rooms", "messages", "keys"), [(1, 68, 5), (5, 100, 30)])
def test_the_example_bot_answers_a_backlog(
    any_bed: Bed, example_bot: ExampleBot, rooms: int, messages: int, keys: int
) -> None:
    questions, alice = backlog(any_bed, rooms)
    first = example_bot.start_as(questions.bot, MATRIX_PASSWORD=questions.bot.user.password)
    # What she says before she knows the bot's device is encrypted for others alone.
    alice.call("sync")
    questions.ask(alice, 1)
    questions.wait()
    first.kill()
    first.wait()
    questions.ask(alice, messages, keys)
    example_bot.start_as(questions.bot)
    questions.assert_answered(alice, lambda _, text: text)


def test_live_messages_do_not_overtake_a_backlog(any_bed: Bed) -> None:
    questions, alice = backlog(any_bed)
    bot = met_bot(questions, alice)
    bot.kill()
    questions.ask(alice, 68, keys=5)
    bot = answering(questions)
    for _ in range(20):
        questions.ask(alice, 1)
    questions.assert_answered(alice, lambda event_id, _: f"answer {event_id}")
    (asked,) = questions.asked.values()
    # The first one was the first process's.
    told = [each["id"] for each in bot.told if each["event"] == "message"]
    assert [event_id for event_id in told if event_id in asked] == list(asked)[1:]


@pytest.mark.parametrize("restarted", [True, False])
@pytest.mark.parametrize("messages", [3, 30])
def test_who_was_kicked_meanwhile_can_read_no_answer(any_bed: Bed, messages: int, restarted: bool) -> None:
    questions, alice = backlog(any_bed)
    (room,) = questions.asked
    carol, dave = any_bed.api.register("carol"), any_bed.api.register("dave")
    for user in (carol, dave):
        any_bed.api.upload_keys(user, "PHONE", one_time_keys=2)
        any_bed.api.invite(questions.alice.user, room, user)
        any_bed.api.join(user, room)
    bot = any_bed.start(questions.bot)
    bot.call("answer", derived=True)
    for client in (bot, alice, bot):
        client.call("sync")
    questions.ask(alice, 1)
    bot.call("sync")
    before = _sessions(questions, room)
    keys = {user: _room_keys(any_bed, user, questions) for user in (carol, dave)}
    assert len(before) == 1
    assert all(keys.values())

    questions.ask(alice, messages)
    any_bed.api.kick(questions.alice.user, room, carol)
    if restarted:
        bot.kill()
        bot = any_bed.start(questions.bot)
        bot.call("answer", derived=True)
    bot.call("sync")
    questions.assert_answered(alice, lambda event_id, _: f"answer {event_id}")
    new = _sessions(questions, room)[len(before) :]
    assert set(new).isdisjoint(before)
    assert _room_keys(any_bed, carol, questions) == keys[carol]
    assert _room_keys(any_bed, dave, questions) > keys[dave]


def _sessions(questions: Backlog, room: str) -> list[str]:
    """The Megolm sessions of the bot's messages."""
    timeline = questions.bed.api.timeline(questions.alice.user, room)
    sender = questions.bot.user.user_id
    sent = [event for event in timeline if event["type"] == "m.room.encrypted" and event["sender"] == sender]
    return [event["content"]["session_id"] for event in sent]


def _room_keys(bed: Bed, user: User, questions: Backlog) -> int:
    """How many encrypted to-device messages of the bot wait for a user's phone."""
    sent = Counter((event["sender"], event["type"]) for event in bed.api.to_device(user, "PHONE"))
    return sent[questions.bot.user.user_id, "m.room.encrypted"]


@pytest.mark.parametrize("messages", [1, 30])
def test_the_window_of_a_rejoined_room_brings_back_nothing(any_bed: Bed, messages: int) -> None:
    talk, alice, bob = met(any_bed)
    talk.say_all(alice, "seen 1", "seen 2")
    bob.call("sync")
    bob.kill()
    any_bed.api.leave(talk.bob.user, talk.room)
    any_bed.api.invite(talk.alice.user, talk.room, talk.bob.user)
    any_bed.api.join(talk.bob.user, talk.room)
    _reads_only_what_is_new(talk, alice, messages)


@pytest.mark.parametrize("messages", [1, 30])
@pytest.mark.parametrize("older", [True, False])
def test_a_room_joined_by_another_device_begins_with_the_join(any_bed: Bed, messages: int, older: bool) -> None:
    talk, alice, bob = met(any_bed)
    if not older:
        bob.kill()
    talk.room = any_bed.api.encrypted_room(talk.alice.user)
    alice.call("sync")
    talk.say_all(alice, *(f"before the join {number}" for number in range(12)))
    if older:
        bob.call("sync")
        bob.kill()
    any_bed.api.invite(talk.alice.user, talk.room, talk.bob.user)
    any_bed.api.join(talk.bob.user, talk.room)
    _reads_only_what_is_new(talk, alice, messages)


def _reads_only_what_is_new(talk: Talk, alice: Client, messages: int) -> None:
    alice.call("sync")
    before = set(talk.sent)
    talk.say_all(alice, *(f"new {number}" for number in range(messages)))
    bob = talk.bed.start(talk.bob)
    bob.call("sync")
    bob.call("sync")
    new = [event_id for event_id in talk.sent if event_id not in before]
    assert [each["id"] for each in bob.told if each.get("room") == talk.room] == new


def test_with_a_limit_the_newest_are_read_and_the_others_reported(any_bed: Bed) -> None:
    talk, alice, bob = met(any_bed)
    bob.call("sync")
    bob.kill()
    before = set(talk.sent)
    talk.say_all(alice, *(f"missed {number}" for number in range(40)))
    new = [event_id for event_id in talk.sent if event_id not in before]
    bob = any_bed.start(talk.bob, gap_limit=15)
    bob.call("sync")
    assert [each["id"] for each in bob.told if each["event"] == "message"] == new[-15:]
    (missed,) = [each for each in bob.told if each["event"] == "missed"]
    assert (missed["room"], missed["cause"]) == (talk.room, "limit")
    # What was not fetched can be read all the same.
    assert talk.unreadable(bob) == []
