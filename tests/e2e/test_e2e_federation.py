"""A room on two homeservers that cannot reach each other for a while: its history has branches then."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from homeserver_api import encrypted
from homeserver_bed import Bed
from homeserver_federation import FederatedHomeserver, apart

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

_SECONDS = 60


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Bed, Bed]]:
    """A bed on each of two homeservers that federate."""
    servers = FederatedHomeserver(), FederatedHomeserver()
    near, far = (Bed(server, tmp_path, lambda: f"sqlite:///{tmp_path}/{uuid4()}.db") for server in servers)
    yield near, far
    for bed, server in zip((near, far), servers, strict=True):
        bed.close()
        server.close()


@pytest.mark.parametrize("saw_one_branch", [True, False])
def test_events_that_arrive_late_are_answered(two: tuple[Bed, Bed], saw_one_branch: bool) -> None:
    near, far = two
    alice, account, carol = near.device("alice"), near.device("bot"), far.device("carol")
    room = near.api.encrypted_room(alice.user, account.user)
    near.api.invite(alice.user, room, carol.user)
    far.api.join(carol.user, room, via=near.server.name)
    clients = [near.start(alice), near.start(account), far.start(carol)]
    speaker, bot, far_speaker = clients
    bot.call("answer", derived=True)
    for client in clients * 2:
        client.call("sync")
    asked = dict(speaker.call("say_all", room=room, texts=["hello"]))
    _until(lambda: asked.keys() <= set(encrypted(far.api.timeline(carol.user, room))))
    asked |= far_speaker.call("say_all", room=room, texts=["hello from afar"])
    _until(lambda: asked.keys() <= set(encrypted(near.api.timeline(alice.user, room))))
    bot.call("sync")

    with apart(*(bed.server for bed in two if isinstance(bed.server, FederatedHomeserver))):
        asked |= speaker.call("say_all", room=room, texts=[f"near {number}" for number in range(20)])
        late = far_speaker.call("say_all", room=room, texts=[f"far {number}" for number in range(8)])
        if saw_one_branch:
            bot.call("sync")
        bot.kill()
        asked |= speaker.call("say_all", room=room, texts=[f"nearer {number}" for number in range(20)])
    # Something that is sent makes the servers try again.
    asked |= late | far_speaker.call("say_all", room=room, texts=["there again"])
    asked |= speaker.call("say_all", room=room, texts=["here again"])
    _until(lambda: asked.keys() <= set(encrypted(near.api.timeline(alice.user, room))))

    bot = near.start(account)
    bot.call("answer", derived=True)
    bot.call("sync")
    speaker.call("sync")
    answers = Counter(text for text in speaker.call("history", room=room).values() if str(text).startswith("answer "))
    assert answers == Counter(f"answer {event_id}" for event_id in asked)


def _until(wanted: Callable[[], bool]) -> None:
    ends = time.monotonic() + _SECONDS
    while not wanted():
        assert time.monotonic() < ends, "the homeservers do not meet"
        time.sleep(0.2)
