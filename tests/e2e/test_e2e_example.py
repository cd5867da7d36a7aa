"""The example bot, run as its page says."""

from __future__ import annotations

import signal
import time

import pytest

from homeserver_bed import Bed, Talk
from homeserver_client import Client
from homeserver_example import ExampleBot

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

_SECONDS = 60


def test_the_example_bot_lives_through_its_page(bed: Bed, example_bot: ExampleBot) -> None:
    owner, account = bed.device("alice"), bed.device("bot")
    alice = bed.start(owner)
    alice.call("sync")
    first = example_bot.start_as(account, MATRIX_PASSWORD=account.user.password)
    room = bed.api.inviting_room(owner.user, account.user)
    talk = Talk(bed, owner, account, room, {})
    example_bot.until(lambda: bed.api.is_joined(owner.user, room, account.user))
    alice.call("sync")
    _is_repeated(talk, alice, account.user.user_id, "hello")

    first.kill()
    assert first.wait() == -signal.SIGKILL
    asked = talk.say(alice, "are you there?")
    # No password any more.
    second = example_bot.start_as(account)
    _hears(talk, alice, account.user.user_id, "are you there?")
    _is_repeated(talk, alice, account.user.user_id, "welcome back")

    third = example_bot.start_as(account)
    # The second has nothing to write, and so learns nothing, until something happens.
    _is_repeated(talk, alice, account.user.user_id, "who are you?")
    assert second.wait(timeout=_SECONDS) == 10, example_bot.log()
    third.terminate()
    assert third.wait(timeout=_SECONDS) == 0, example_bot.log()

    texts = alice.call("history", room=room)
    assert asked in texts
    assert sorted(texts.values()) == sorted(2 * ["hello", "are you there?", "welcome back", "who are you?"])
    assert talk.indices_used_twice() == 0


def test_without_its_settings_the_example_bot_says_what_is_missing(example_bot: ExampleBot) -> None:
    process = example_bot.start()
    assert process.wait(timeout=_SECONDS) == 2
    assert "MATRIX_HOMESERVER" in example_bot.log()


def _is_repeated(talk: Talk, alice: Client, bot: str, text: str) -> None:
    talk.say(alice, text)
    _hears(talk, alice, bot, text)


def _hears(talk: Talk, alice: Client, bot: str, text: str) -> None:
    ends = time.monotonic() + _SECONDS
    while time.monotonic() < ends:
        alice.call("sync", wait=1)
        if any(each.get("text") == text and each["sender"] == bot for each in alice.told):
            return
    raise AssertionError(f"nobody repeated {text!r} in {talk.room}; Alice was told {alice.told[-3:]}")
