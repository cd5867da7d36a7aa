"""Identities that change, and devices that nobody signed, between a bot on our client and people with Element."""

from __future__ import annotations

import pytest

from driven import ClientFailed
from homeserver_bed import Bed
from peer_story import Story

pytestmark = pytest.mark.e2e


def test_a_person_who_becomes_somebody_else_is_noticed_and_still_read(bed: Bed) -> None:
    story = Story(bed)
    story.both_are_read_and_green("before")
    story.person.call("reset_identity")
    story.bot_is_told(story.person, was_verified=False)
    story.both_are_read_and_green("after")
    story.second_host()
    story.both_are_read_and_green("on a second host")


def test_a_bot_that_is_somebody_else_is_seen_so_and_still_read(bed: Bed) -> None:
    story = Story(bed)
    story.both_are_read_and_green("before")
    story.bot.call("reset_identity", password=story.device.user.password)
    story.person.sees_user(story.device.user, verified=False, needs_approval=True)
    # Between the two there was a moment in which the device had no valid signature.
    story.person_sees_a_signed_device()
    story.both_are_read_and_green("after")
    story.bot.call("rotate", room=story.room)
    story.person.call("rotate", room=story.room)
    story.second_host()
    story.both_are_read_and_green("with new room keys")
    story.person.call("accept_identity", user=story.user_id)
    assert not story.person.call("user", user=story.user_id)["needs_approval"]


def test_a_persons_element_on_the_bots_account_replaces_nothing(any_bed: Bed) -> None:
    story = Story(any_bed)
    before = any_bed.api.master_key(story.device.user)
    element = any_bed.peer(story.device.user)
    element.call("sync")
    element.call("restore", recovery_key=story.recovery_key())
    assert any_bed.api.master_key(story.device.user) == before
    assert element.call("device", user=story.user_id, device=story.device_id)["verified"]
    assert element.call("own")["secrets_cached"] == {"masterKey": True, "selfSigningKey": True, "userSigningKey": True}


def test_a_device_that_its_owner_did_not_sign_gets_no_room_key_and_is_told(any_bed: Bed) -> None:
    story = Story(any_bed)
    unsigned = any_bed.peer(story.person.user, isolation=False)
    unsigned.call("sync")
    story.bot.call("sync")
    said = story.answer("not for everybody")
    assert unsigned.fails(story.room, said).failure == "MEGOLM_KEY_WITHHELD_FOR_UNVERIFIED_DEVICE"
    assert unsigned.withheld_codes() == ["m.unverified"]
    assert story.person.read(story.room, said).colour == 0
    # It is signed later.
    unsigned.call("restore", recovery_key=story.person.recovery_key)
    story.bot.call("sync")
    said = story.answer("for everybody")
    assert unsigned.read(story.room, said).colour == 0


def test_the_bot_knows_which_of_a_persons_devices_the_person_signed(any_bed: Bed) -> None:
    story = Story(any_bed, accept="signed")
    unsigned = any_bed.peer(story.person.user, isolation=False)
    unsigned.call("sync")
    story.bot.call("sync")
    signed, other = story.ask("signed"), unsigned.call("send", room=story.room, text="not signed")
    story.bot.call("sync")
    assert story.sender_trust(signed) == "signed"
    assert story.sender_trust(other) == "unsigned"
    assert other not in story.bot.texts()
    # A bot that takes everything can tell them apart.
    story.second_host(accept="all")
    said = unsigned.call("send", room=story.room, text="still not signed")
    story.bot.call("sync")
    assert (story.bot.texts()[said], story.sender_trust(said)) == ("still not signed", "unsigned")


def test_what_a_persons_device_said_before_it_was_removed_is_known_to_be_the_persons(any_bed: Bed) -> None:
    story = Story(any_bed)
    story.bot.kill()
    second = any_bed.peer(story.person.user)
    second.call("sync")
    second.call("restore", recovery_key=story.person.recovery_key)
    said = second.call("send", room=story.room, text="and gone")
    second.call("logout")
    story.second_host(accept="signed")
    assert story.bot.texts()[said] == "and gone"
    assert story.sender_trust(said) == "signed"


def test_a_verified_person_who_becomes_somebody_else_gets_no_room_key_until_somebody_decides(bed: Bed) -> None:
    story = Story(bed)
    story.both_are_read_and_green("before")
    story.verify()
    story.both_are_read_and_green("verified")
    assert story.sender_trust(list(story.said)[-2]) == "verified"
    story.person.call("reset_identity")
    # The bot was verified by who the person was.
    story.person.call("withdraw_verification", user=story.user_id)
    story.bot_is_told(story.person, was_verified=True)
    story.second_host()
    kept_back = story.answer("to whom?")
    assert story.person.fails(story.room, kept_back).failure == "MEGOLM_KEY_WITHHELD_FOR_UNVERIFIED_DEVICE"
    assert story.bot.call("accept_identity", user=story.person.user.user_id)
    story.both_are_read_and_green("accepted")
    story.verify()
    story.second_host()
    story.both_are_read_and_green("verified again")
    assert story.sender_trust(list(story.said)[-2]) == "verified"


def test_a_person_hears_that_a_verified_bot_is_somebody_else(bed: Bed) -> None:
    story = Story(bed)
    story.both_are_read_and_green("before")
    story.verify()
    story.bot.call("reset_identity", password=story.device.user.password)
    story.person.sees_user(story.device.user, verified=False, was_verified=True, needs_approval=True)
    story.person_sees_a_signed_device()
    with pytest.raises(ClientFailed, match="verified have changed their identity"):
        story.ask("to whom?")
    story.bot.call("rotate", room=story.room)
    said = story.answer("it is me")
    assert story.person.fails(story.room, said).failure == "SENDER_IDENTITY_PREVIOUSLY_VERIFIED"
    story.person.call("withdraw_verification", user=story.user_id)
    assert story.shown()["it is me"].colour == 0
    story.both_are_read_and_green("withdrawn")
    story.second_host()
    story.verify()
    story.both_are_read_and_green("verified again")


def test_a_room_for_verified_people_alone_is_read_once_they_are(any_bed: Bed) -> None:
    story = Story(any_bed)
    story.bot.call("room_keys", room=story.room, policy="verified")
    early = story.answer("not for strangers")
    assert story.person.fails(story.room, early).failure == "MEGOLM_KEY_WITHHELD_FOR_UNVERIFIED_DEVICE"
    story.verify()
    story.both_are_read_and_green("verified")
    story.second_host()
    story.both_are_read_and_green("on a second host")
