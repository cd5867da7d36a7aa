"""A database is put back under a bot that talks to a person with Element: the anchor, and `cryptostore restored`."""

from __future__ import annotations

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
    assert f"cryptostore restored {bot.url.partition('://')[0]}" in (said := bot.is_refused())
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
    assert bot.used_twice() == []
    assert story.unread_by_bot() == []
    story.second_host(homeserver=proxy.url)
    story.both_are_read_and_green("at the end")


def test_without_it_keys_are_used_twice(any_bed: Bed, proxy: HomeserverProxy) -> None:
    bot = PutBack(any_bed, proxy)
    bot.hide_anchor()
    bot.start()
    answer = bot.story.answer("with a key that was used")
    assert bot.used_twice()
    assert bot.story.person.fails(bot.story.room, answer).text is None
