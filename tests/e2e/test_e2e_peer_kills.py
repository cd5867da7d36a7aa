"""SIGKILL at random, from the first start on, while a person with Element asks: each question has one green answer."""

from __future__ import annotations

import random
import time
from contextlib import suppress

import pytest

from homeserver_bed import Bed, Device, Figure
from patience import wait_until
from peer_story import Story

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def test_a_bot_that_is_killed_at_random_answers_a_person_with_element(bed: Bed, figure: Figure) -> None:
    _kill_at_random(bed, starts=3, kills=6, figure=figure)


@pytest.mark.soak
@pytest.mark.timeout(14_400)
def test_a_bot_that_is_killed_very_often_answers_a_person_with_element(bed: Bed, figure: Figure) -> None:
    _kill_at_random(bed, starts=20, kills=100, figure=figure)


def _kill_at_random(bed: Bed, starts: int, kills: int, figure: Figure) -> None:
    seed = random.SystemRandom().randrange(2**32)
    chance = random.Random(seed)
    device = bed.device("bot")
    for _ in range(starts):
        _start_and_die(bed, device, chance)
    story = Story(bed, device)
    for _ in range(kills):
        _let_it_answer(story)
        _ask(story, chance)
        time.sleep(chance.uniform(0, 1))
        story.bot.kill()
        story.bot = bed.start(device)
    _let_it_answer(story)
    with suppress(AssertionError):
        wait_until(lambda: len(_answers(story)) >= len(story.said))
    answers = _answers(story)
    assert sorted(answers) == sorted((f"answer {event_id}", None, 0) for event_id in story.said), seed
    figure(f"{starts + kills} kills, {len(answers)} questions, each with one green answer; seed {seed}")


def _start_and_die(bed: Bed, device: Device, chance: random.Random) -> None:
    client = bed.spawn(device)
    client.begin("start")
    time.sleep(chance.uniform(0, 0.5))
    client.kill()


def _let_it_answer(story: Story) -> None:
    story.bot.call("answer", derived=True)
    story.bot.call("sync_forever")


def _ask(story: Story, chance: random.Random) -> None:
    for _ in range(chance.randrange(4)):
        for side in (story.person, story.bot):
            if chance.random() < 0.3:
                side.call("rotate", room=story.room)
        story.ask(f"question {len(story.said)}")


def _answers(story: Story) -> list[tuple[str | None, str | None, int | None]]:
    """What the bot said, as the person sees it: text, failure, shield."""
    shown = story.person.messages(story.room).values()
    return [(each.text, each.failure, each.colour) for each in shown if each.sender == story.user_id]
