"""A bot and what Element runs verify each other: in a room and between devices, either side asking, and themselves."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import pytest

from driven import ClientFailed
from homeserver_bed import Bed
from homeserver_client import Client
from peer import Peer
from peer_story import Story, person

pytestmark = pytest.mark.e2e

_SECONDS: Final = 60


def eventually(ask: Callable[[], Any], is_so: Callable[[Any], bool]) -> None:
    """Wait until an answer is as it should be."""
    deadline = time.monotonic() + _SECONDS
    while not is_so(answer := ask()):
        assert time.monotonic() < deadline, answer
        time.sleep(0.2)


def told_of(bot: Client, flow: str) -> None:
    """Wait until the bot is told of a verification."""
    expected = {"event": "verification", "id": flow}
    bot.until(lambda told: any(expected.items() <= each.items() for each in told))


def compare(bot: Client, peer: Peer, flow: str, *, share_secrets: bool = False) -> dict[str, bool]:
    """Both people see the same, and say so; what the bot has verified then."""
    assert bot.call("emoji", verification=flow) == peer.emoji(flow)
    peer.call("confirm", verification=flow)
    bot.call("confirm", verification=flow, share_secrets=share_secrets)
    finished: dict[str, bool] = bot.call("finished", verification=flow)
    peer.verification("done", id=flow)
    return finished


def asked_by_peer(story: Story, **where: str) -> str:
    """The person asks, the bot accepts, and the person's client begins."""
    flow = str(story.person.call("request_verification", user=story.user_id, **where))
    told_of(story.bot, flow)
    story.bot.call("accept", verification=flow)
    story.person.verification("ready", id=flow)
    story.person.call("start", verification=flow)
    return flow


def asked_by_bot(story: Story, **where: str) -> str:
    """The bot asks, and the person's client accepts; the bot's begins."""
    flow = str(story.bot.call("request_verification", user=story.person.user.user_id, **where))
    story.person.verification("requested", id=flow)
    story.person.call("ready", verification=flow)
    return flow


def where(story: Story, who: str, way: str) -> dict[str, str]:
    if way == "room":
        return {"room": story.room}
    return {"device": story.device_id if who == "person" else story.person.device_id}


@pytest.mark.parametrize("way", ["room", "devices"])
@pytest.mark.parametrize("who", ["person", "bot"])
def test_a_person_and_a_bot_verify_each_other(any_bed: Bed, who: str, way: str) -> None:
    story = Story(any_bed)
    story.both_are_read_and_green("before")
    story.bot.call("sync_forever")
    ask = asked_by_peer if who == "person" else asked_by_bot
    flow = ask(story, **where(story, who, way))
    assert compare(story.bot, story.person, flow) == {"user": True, "device": True}
    story.person.sees_user(story.device.user, verified=True)
    story.second_host()
    story.both_are_read_and_green("on another host")


def test_both_begin_at_once(any_bed: Bed) -> None:
    story = Story(any_bed)
    story.bot.call("sync_forever")
    flow = asked_by_bot(story, room=story.room)
    # The bot begins as soon as it sees that the person is ready.
    story.person.call("start", verification=flow)
    assert compare(story.bot, story.person, flow) == {"user": True, "device": True}
    story.person.sees_user(story.device.user, verified=True)


@pytest.mark.parametrize("who", ["person", "bot"])
def test_what_they_see_differs(any_bed: Bed, who: str) -> None:
    story = Story(any_bed)
    story.bot.call("sync_forever")
    flow = asked_by_peer(story, room=story.room)
    assert story.bot.call("emoji", verification=flow) == story.person.emoji(flow)
    end: Any = story.person if who == "person" else story.bot
    end.call("mismatch", verification=flow)
    with pytest.raises(ClientFailed, match=r"VerificationCancelled.*m\.mismatched_sas"):
        story.bot.call("finished", verification=flow)
    story.person.verification("cancelled", id=flow, code="m.mismatched_sas")


@pytest.mark.parametrize("who", ["person", "bot"])
def test_either_cancels(any_bed: Bed, who: str) -> None:
    story = Story(any_bed)
    story.bot.call("sync_forever")
    flow = str(story.person.call("request_verification", user=story.user_id, room=story.room))
    told_of(story.bot, flow)
    end: Any = story.person if who == "person" else story.bot
    end.call("cancel", verification=flow)
    with pytest.raises(ClientFailed, match=r"VerificationCancelled.*m\.user"):
        story.bot.call("finished", verification=flow)
    story.person.verification("cancelled", id=flow, code="m.user")


@pytest.mark.parametrize("way", ["room", "devices"])
def test_a_restart_in_the_middle_is_told_and_the_next_one_works(bed: Bed, way: str) -> None:
    story = Story(bed)
    story.bot.call("sync_forever")
    flow = asked_by_peer(story, **where(story, "person", way))
    assert story.bot.call("emoji", verification=flow) == story.person.emoji(flow)
    story.second_host()
    story.bot.call("sync_forever")
    story.person.verification("cancelled", id=flow, code="m.unknown_transaction")
    again = asked_by_peer(story, **where(story, "person", way))
    assert compare(story.bot, story.person, again) == {"user": True, "device": True}


def test_a_persons_session_makes_a_bot_on_the_account_green(any_bed: Bed) -> None:
    """Without a recovery key: the session signs the bot's device, and sends the account's secrets."""
    owner = person(any_bed)
    device = any_bed.device_of(owner.user)
    bot = any_bed.start(device)
    bot.call("sync_forever")
    assert bot.call("own_identity")["state"] == "OTHER_IDENTITY"
    asked = {"user": owner.user.user_id, "device": device.config.device_id}
    eventually(lambda: owner.call("device", **asked), lambda seen: seen is not None)
    flow = str(owner.call("request_verification", **asked))
    told_of(bot, flow)
    bot.call("accept", verification=flow)
    owner.verification("ready", id=flow)
    owner.call("start", verification=flow)
    assert compare(bot, owner, flow) == {"user": True, "device": True}
    eventually(lambda: bot.call("own_identity"), lambda own: own["state"] == "SIGNED" and own["has_seeds"])
    bot.kill()
    story = Story(any_bed, device)
    story.both_are_read_and_green("a person that is not the owner")


@pytest.mark.parametrize("share", [True, False], ids=["with secrets", "without secrets"])
@pytest.mark.parametrize("who", ["person", "bot"])
def test_a_bot_signs_a_persons_session_on_its_account(any_bed: Bed, share: bool, who: str) -> None:
    device = any_bed.device("bot")
    bot = any_bed.start(device)
    bot.call("sync_forever")
    session = any_bed.peer(device.user)
    session.call("sync")
    if who == "person":
        flow = str(session.call("request_verification", user=device.user.user_id))
        told_of(bot, flow)
        bot.call("accept", verification=flow)
        session.verification("ready", id=flow)
        session.call("start", verification=flow)
    else:
        # The SDK leaves a request alone that comes of a device which it has not heard of yet.
        asked = {"user": device.user.user_id, "device": device.config.device_id}
        eventually(lambda: session.call("device", **asked), lambda seen: seen is not None)
        flow = str(bot.call("request_verification", user=device.user.user_id, device=session.device_id))
        session.verification("requested", id=flow)
        session.call("ready", verification=flow)
    assert compare(bot, session, flow, share_secrets=share) == {"user": False, "device": True}
    own = {"user": device.user.user_id, "device": session.device_id}
    eventually(lambda: session.call("device", **own), lambda seen: seen["signed_by_owner"])
    if share:
        eventually(lambda: session.call("own"), lambda own: all(own["secrets_cached"].values()))
    else:
        assert not any(session.call("own")["secrets_cached"].values())
