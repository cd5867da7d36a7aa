"""A person whose client is what Element runs, with "exclude insecure devices" on."""

from __future__ import annotations

from pathlib import Path

import pytest

from driven import ClientFailed
from homeserver_bed import Bed
from peer_install import NoPeer, peer_command
from peer_story import person

pytestmark = pytest.mark.e2e


def test_two_people_read_each_other(any_bed: Bed) -> None:
    ada, ben = person(any_bed), person(any_bed)
    room = ada.call("create_room", invite=[ben.user.user_id])
    ben.call("join", room=room)
    for sender, reader in ((ada, ben), (ben, ada)):
        said = sender.call("send", room=room, text="hello")
        message = reader.read(room, said)
        assert (message.text, message.colour) == ("hello", 0)


def test_a_person_and_a_bot_whose_device_nobody_signed_read_nothing_of_each_other(any_bed: Bed) -> None:
    ada, bot = person(any_bed), any_bed.device("bot", client="stock")
    client = any_bed.start(bot)
    client.call("sync")
    room = ada.call("create_room", invite=[bot.user.user_id])
    any_bed.api.join(bot.user, room)
    client.call("sync")
    asked = ada.call("send", room=room, text="hello?")
    client.call("sync")
    assert client.call("history", room=room)[asked] is None
    answered = client.call("send", room=room, text="nobody reads this")
    assert ada.fails(room, answered).failure == "UNSIGNED_SENDER_DEVICE"
    told = any_bed.api.to_device(bot.user, bot.config.device_id)
    assert [each["content"]["code"] for each in told if each["type"] == "m.room_key.withheld"] == ["m.unverified"]


def test_two_people_verify_each_other_by_emoji_and_one_becomes_somebody_else(any_bed: Bed) -> None:
    ada, ben = person(any_bed), person(any_bed)
    room = ada.call("create_room", invite=[ben.user.user_id])
    ben.call("join", room=room)
    ada.read(room, ben.call("send", room=room, text="is that you?"))
    flow = ada.call("request_verification", user=ben.user.user_id, room=room)
    ben.verification("requested", id=flow)
    ben.call("ready", verification=flow)
    ada.verification("ready", id=flow)
    ada.call("start", verification=flow)
    assert ada.emoji(flow) == ben.emoji(flow)
    for each in (ada, ben):
        each.call("confirm", verification=flow)
    ada.sees_user(ben.user, verified=True)
    ben.sees_user(ada.user, verified=True)

    ben.call("reset_identity")
    ada.sees_user(ben.user, verified=False, was_verified=True)
    with pytest.raises(ClientFailed, match="verified have changed their identity"):
        ada.call("send", room=room, text="to whom?")
    ada.call("withdraw_verification", user=ben.user.user_id)
    assert ben.fails(room, ada.call("send", room=room, text="to you")).failure == "SENDER_IDENTITY_PREVIOUSLY_VERIFIED"
    # Ben's own verification of Ada was made by who he was before.
    ben.call("withdraw_verification", user=ada.user.user_id)
    assert ben.read(room, ada.call("send", room=room, text="to you")).colour == 0


def test_a_second_device_of_a_person_reads_what_the_backup_has(any_bed: Bed) -> None:
    ada = person(any_bed)
    room = ada.call("create_room")
    said = ada.call("send", room=room, text="a note to myself")
    ada.call("back_up")
    second = any_bed.peer(ada.user)
    second.call("sync")
    assert second.call("restore", recovery_key=ada.recovery_key) == {"total": 1, "imported": 1}
    message = second.read(room, said)
    # What came from a backup is grey: anybody with the backup's public key could have put it there.
    assert (message.text, message.colour, message.reason) == ("a note to myself", 1, 4)


def test_without_packages_the_error_says_where_they_are_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CRYPTOSTORE_TEST_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(NoPeer, match=r"No matching distribution.*pip config list.*npm config get registry"):
        peer_command()
    assert not list(tmp_path.rglob("complete"))
