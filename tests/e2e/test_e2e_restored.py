"""A database is put back under a bot that talks to a person with Element: the anchor, and `cryptostore restored`."""

from __future__ import annotations

import random
import time

import pytest

from homeserver_bed import Bed, Figure
from homeserver_proxy import HomeserverProxy
from homeserver_put_back import PutBack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def test_all_that_is_said_later_is_read_and_nothing_is_used_twice(
    bed: Bed, proxy: HomeserverProxy, figure: Figure
) -> None:
    bot = PutBack(bed, proxy)
    story = bot.story
    without_it = bot.goes_on_unnoticed()
    assert without_it, "so that this test can fail"
    assert "`cryptostore restored " in (said := bot.is_refused())
    assert f"--user-id {story.user_id} --device-id {story.device_id}" in said
    made_safe = bot.restored()
    assert (made_safe.code, made_safe.err) == (0, "")
    claims = len(proxy.asked_for("/keys/claim"))
    bot.start()
    figure(f"a restored bot took {len(proxy.asked_for('/keys/claim')) - claims - 1} one-time keys of its own back")
    # Its key was lost, and comes out of the key backup.
    bot.catches_up("at once?")
    bot.is_whole()
    for number in range(3):
        story.bot.call("rotate", room=story.room)
        story.both_are_read_and_green(f"after {number}")
    assert bot.used_twice() == without_it
    assert story.unread_by_bot() == []
    story.second_host(homeserver=proxy.url)
    story.both_are_read_and_green("at the end")


def test_a_start_that_is_killed_is_completed_by_the_next(any_bed: Bed, proxy: HomeserverProxy, figure: Figure) -> None:
    _kill_starts(any_bed, proxy, 2, figure)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_many_starts_that_are_killed_are_completed_by_the_next(
    bed: Bed, proxy: HomeserverProxy, figure: Figure
) -> None:
    _kill_starts(bed, proxy, 20, figure)


def _kill_starts(bed: Bed, proxy: HomeserverProxy, kills: int, figure: Figure) -> None:
    draw = random.Random(seed := random.SystemRandom().randrange(2**32))
    bot = PutBack(bed, proxy, lost=6)
    began = time.monotonic()
    seconds = 0.0
    for number in range(kills + 1):
        assert bot.restored().code == 0
        if number:
            bot.killed_start(draw.uniform(0.2, 1) * seconds)
        began = time.monotonic()
        bot.start()
        bot.catches_up(f"after {number}")
        bot.is_whole()
        seconds = seconds or time.monotonic() - began
        bot.story.bot.call("rotate", room=bot.story.room)
        bot.story.both_are_read_and_green(f"after {number}")
        assert bot.used_twice() == [], seed
        bot.story.bot.kill()
    figure(f"{kills} kills in the first {seconds:.1f} s of restored starts; nothing used twice; seed {seed}")
