"""A person whose client is what Element runs, with "exclude insecure devices" on."""

from __future__ import annotations

import pytest

from homeserver_api import User
from homeserver_bed import Bed
from peer import Peer

pytestmark = pytest.mark.e2e


def person(bed: Bed, user: User | None = None) -> Peer:
    """A person who has set everything up as Element asks for, and syncs."""
    peer = bed.peer(user)
    peer.call("sync")
    peer.call("bootstrap")
    return peer


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
