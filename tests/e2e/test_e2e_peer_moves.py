"""A bot moves to another host between any two things that happen between it and a person with Element."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from homeserver_bed import Bed
from peer_story import Story

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

Step = Callable[[Story], None]


def a_person_takes_new_room_keys(story: Story) -> None:
    story.person.call("rotate", room=story.room)


def the_bot_takes_new_room_keys(story: Story) -> None:
    story.bot.call("rotate", room=story.room)


def they_verify_each_other(story: Story) -> None:
    story.verify()


def a_person_has_a_second_device(story: Story) -> None:
    second = story.bed.peer(story.person.user)
    second.call("sync")
    second.call("restore", recovery_key=story.person.recovery_key)
    story.person = second


def element_logs_in_to_the_bots_account(story: Story) -> None:
    element = story.bed.peer(story.device.user)
    element.call("sync")
    element.call("restore", recovery_key=story.recovery_key())
    # A session that stays cancels the second verification that somebody asks for, although the bot takes it.
    element.call("logout")


def the_person_becomes_somebody_else(story: Story) -> None:
    story.person.recovery_key = story.person.call("reset_identity")
    story.person.call("withdraw_verification", user=story.user_id)
    story.bot_is_told(story.person, was_verified=True)
    assert story.bot.call("accept_identity", user=story.person.user.user_id)
    story.bot.call("flush")


def the_bot_becomes_somebody_else(story: Story) -> None:
    story.bot.call("reset_identity", password=story.device.user.password)
    story.person_sees_a_signed_device()
    story.person.sees_user(story.device.user, verified=False, needs_approval=True)
    story.person.call("withdraw_verification", user=story.user_id)


STEPS: list[Step] = [
    a_person_takes_new_room_keys,
    they_verify_each_other,
    the_bot_takes_new_room_keys,
    a_person_has_a_second_device,
    element_logs_in_to_the_bots_account,
    the_person_becomes_somebody_else,
    they_verify_each_other,
    the_bot_becomes_somebody_else,
    they_verify_each_other,
]


def test_another_process_goes_on_with_the_database(bed: Bed) -> None:
    story = Story(bed)
    for step in STEPS:
        step(story)
        story.second_host()
        story.both_are_read_and_green(f"after {step.__name__}")
    assert story.unread_by_bot() == []


@pytest.mark.parametrize("lost_after", [pytest.param(each, marks=pytest.mark.soak) for each in range(len(STEPS))])
def test_another_device_goes_on_without_the_database(bed: Bed, lost_after: int) -> None:
    _loses_its_database(bed, {lost_after})


def test_another_device_goes_on_without_the_database_each_time(any_bed: Bed) -> None:
    _loses_its_database(any_bed, set(range(len(STEPS))))


def _loses_its_database(bed: Bed, lost_after: set[int]) -> None:
    story = Story(bed)
    story.both_are_read_and_green("before")
    for number, step in enumerate(STEPS):
        step(story)
        if number in lost_after:
            story.bot.call("back_up")
            story.lose_database(story.recovery_key())
        story.both_are_read_and_green(f"after {step.__name__} ({number})")
    story.bot.call("restore_backup")
    assert story.unread_by_bot() == []
