"""SIGKILL again and again, at named points of a backlog and at random: each message has one answer, in order."""

from __future__ import annotations

import random
import time

import pytest

from homeserver_api import indices_used_twice
from homeserver_backlog import Backlog, answering, backlog, met_bot
from homeserver_bed import Bed, Figure
from homeserver_client import Client

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

#: Where the bot dies while it answers 25 messages, of which the homeserver sends ten by itself.
POINTS = [
    ("sync:answered", 1),
    ("batch:before", 1),
    ("batch:after", 1),
    ("messages:before", 1),
    ("messages:answered", 1),
    ("messages:before", 2),
    ("messages:answered", 2),
    ("timeline:event", 13),
    ("answer:before", 1),
    ("answer:sent", 13),
    ("answer:sent", 25),
]

#: Rooms, and messages that wait in each of them when the kills begin.
_ROOMS = 5
_WAITING = 100
#: How many of them have a room key of their own: more than come with one sync.
_KEYS = 30
#: In the soak the next backlog is sent while the bot is down, after so many kills.
_NEXT_BACKLOG = 15


@pytest.mark.parametrize(("point", "nth"), POINTS)
def test_a_kill_in_a_gap_loses_nothing(any_bed: Bed, point: str, nth: int) -> None:
    questions, alice = backlog(any_bed)
    met_bot(questions, alice).kill()
    questions.ask(alice, 25, keys=2)
    bot = any_bed.start(questions.bot)
    bot.call("answer", derived=True)
    bot.call("arm", point=point, nth=nth)
    bot.dies(bot.begin("sync"))
    answering(questions)
    questions.assert_answered(alice, _answer)


def test_random_kills_in_a_backlog_lose_nothing(bed: Bed, figure: Figure) -> None:
    _kill_at_random(bed, kills=15, figure=figure)


@pytest.mark.soak
@pytest.mark.timeout(14_400)
def test_many_random_kills_in_backlogs_lose_nothing(bed: Bed, figure: Figure) -> None:
    _kill_at_random(bed, kills=150, figure=figure)


def _kill_at_random(bed: Bed, kills: int, figure: Figure) -> None:
    """The bot answers a backlog, and what is said meanwhile; it is killed again and again."""
    seed = random.SystemRandom().randrange(2**32)
    chance = random.Random(seed)
    questions, alice = backlog(bed, _ROOMS)
    bot = met_bot(questions, alice)
    for number in range(kills):
        bot.kill()
        if number % _NEXT_BACKLOG == 0:
            questions.wait()
            questions.ask(alice, _WAITING, _KEYS)
        bot = answering(questions)
        _talk(questions, alice, chance)
        time.sleep(chance.uniform(0, 1))
    bot.kill()
    answering(questions)
    try:
        questions.assert_answered(alice, _answer)
    except AssertionError as error:
        error.add_note(f"seed {seed}")
        raise
    timelines = [bed.api.timeline(questions.alice.user, room) for room in questions.asked]
    twice = sum(map(indices_used_twice, timelines))
    figure(
        f"{kills} kills, {questions.total} messages answered once, in order; {twice} indices used twice, seed {seed}"
    )
    assert twice == 0, seed


def _talk(questions: Backlog, alice: Client, chance: random.Random) -> None:
    """A few messages in one of the rooms while the bot works."""
    questions.ask(alice, chance.randrange(4), keys=1, room=chance.choice(list(questions.asked)))


def _answer(event_id: str, _text: str) -> str:
    return f"answer {event_id}"
