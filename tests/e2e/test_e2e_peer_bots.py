"""A bot on our client, and a person whose Element excludes insecure devices."""

from __future__ import annotations

import pytest

from homeserver_bed import Bed
from peer_story import Story, person

pytestmark = pytest.mark.e2e


def test_a_bot_with_an_empty_database_and_a_password_is_green_and_stays_so(bed: Bed) -> None:
    story = Story(bed)
    assert story.person.call("device", user=story.user_id, device=story.device_id) == {
        "signed_by_owner": True,
        "verified": False,
    }
    story.both_are_read_and_green("first host")
    story.second_host()
    story.both_are_read_and_green("second host")
    story.bot.call("rotate", room=story.room)
    story.person.call("rotate", room=story.room)
    story.both_are_read_and_green("new room keys")
    assert story.unread_by_bot() == []
    assert {text: (each.text, each.colour) for text, each in story.shown().items()} == {
        text: (text, 0) for text in story.said.values()
    }
    assert story.person.withheld_codes() == []


def test_a_bot_signs_itself_on_an_account_whose_identity_a_person_made(bed: Bed) -> None:
    owner = person(bed)
    before = bed.api.master_key(owner.user)
    story = Story(bed, bed.device_of(owner.user), recovery_key=owner.recovery_key)
    assert bed.api.master_key(owner.user) == before
    story.both_are_read_and_green("with the recovery key")
    # To the account's owner the new device is one of the account's own.
    assert owner.call("device", user=story.user_id, device=story.device_id) == {
        "signed_by_owner": True,
        "verified": True,
    }
    # The recovery key was needed once.
    story.second_host()
    story.both_are_read_and_green("without it")


def test_a_bot_without_the_recovery_key_leaves_a_persons_identity_alone(any_bed: Bed) -> None:
    owner = person(any_bed)
    before = any_bed.api.master_key(owner.user)
    story = Story(any_bed, any_bed.device_of(owner.user))
    assert any_bed.api.master_key(owner.user) == before
    said = story.answer("unsigned")
    assert story.person.fails(story.room, said).failure == "UNSIGNED_SENDER_DEVICE"
    # It is given later.
    story.second_host(recovery_key=owner.recovery_key)
    story.bot.call("rotate", room=story.room)
    story.both_are_read_and_green("signed")
    assert any_bed.api.master_key(owner.user) == before


def test_messages_of_a_device_that_is_gone_stay_readable(bed: Bed) -> None:
    story = Story(bed)
    story.both_are_read_and_green("hello")
    with story.person.suspended():
        story.lose_database(story.recovery_key())
        said = story.answer("and gone")
        story.bot.kill()
        bed.api.delete_device(story.device.user, story.device_id)
    shown = story.person.read(story.room, said)
    assert (shown.text, shown.colour) == ("and gone", 0)


def test_a_lost_database_is_replaced_by_the_recovery_key(bed: Bed) -> None:
    story = Story(bed)
    for number in range(3):
        story.person.call("rotate", room=story.room)
        story.bot.call("rotate", room=story.room)
        story.both_are_read_and_green(f"exchange {number}")
    story.bot.call("back_up")
    first = story.device_id
    before = bed.api.master_key(story.device.user)
    story.lose_database(story.recovery_key())
    assert story.device_id != first
    assert bed.api.master_key(story.device.user) == before
    # What the first sync brings is asked for by itself, session by session.
    story.bot_reads("exchange 2?", "exchange 2!")
    story.bot.call("restore_backup")
    assert story.unread_by_bot() == []
    story.both_are_read_and_green("on a new device")


def test_a_person_with_the_bots_recovery_key_reads_the_bots_history(bed: Bed) -> None:
    story = Story(bed)
    story.both_are_read_and_green("before")
    story.bot.call("back_up")
    element = bed.peer(story.device.user)
    element.call("sync")
    restored = element.call("restore", recovery_key=story.recovery_key())
    assert restored == {"total": 2, "imported": 2}
    # Grey, as Element shows whatever came from a backup.
    assert {text: (each.text, each.colour, each.reason) for text, each in story.shown(element).items()} == {
        text: (text, 1, 4) for text in story.said.values()
    }
    own = element.call("own")
    assert own["cross_signing_ready"]
    assert own["secret_storage_ready"]
    assert own["backup_trust"] == {"trusted": True, "matchesDecryptionKey": True}
    # To the bot, the new device is one of its account's own, and gets the next room key.
    story.bot.call("sync")
    story.both_are_read_and_green("after")
    last = list(story.said)[-1]
    assert element.read(story.room, last).text == "after!"
