"""A bot that answers, killed while it does."""

from __future__ import annotations

import pytest

from homeserver_bed import Bed, met

pytestmark = pytest.mark.e2e

#: Where the bot dies while it answers one message.
POINTS = [
    "answer:before",
    "send-to-device:before",
    "send-to-device:answered",
    "send:before",
    "send:answered",
    "answer:sent",
]


@pytest.mark.parametrize("point", POINTS)
def test_every_message_is_answered_exactly_once(bed: Bed, point: str) -> None:
    talk, alice, bob = met(bed)
    bob.kill()
    talk.say_all(alice, "one?", "two?", "three?")
    questions = [event_id for event_id, text in talk.sent.items() if text.endswith("?") and "still" not in text]

    bob = bed.start(talk.bob)
    bob.call("answer", derived=True)
    # The answers are in a session of their own, whose key Alice still has to get.
    bob.call("rotate", room=talk.room)
    bob.call("arm", point=point)
    bob.dies(bob.begin("sync"))

    bob = bed.start(talk.bob)
    bob.call("answer", derived=True)
    bob.call("sync")
    alice.call("sync")
    texts = list(alice.call("history", room=talk.room).values())
    assert [texts.count(f"answer {question}") for question in questions] == [1, 1, 1]
    assert talk.unreadable(alice) == []
    assert talk.unreadable(bob) == []
    assert talk.indices_used_twice() == 0


def test_without_derived_transaction_ids_every_message_is_answered_at_least_once(bed: Bed) -> None:
    talk, alice, bob = met(bed)
    bob.kill()
    question = talk.say(alice, "one?")
    bob = bed.start(talk.bob)
    bob.call("answer")
    bob.call("arm", point="answer:sent")
    bob.dies(bob.begin("sync"))
    bob = bed.start(talk.bob)
    bob.call("answer")
    bob.call("sync")
    alice.call("sync")
    texts = list(alice.call("history", room=talk.room).values())
    # Once before the kill and once after it: why there are derived ones.
    assert texts.count(f"answer {question}") == 2
    assert talk.indices_used_twice() == 0
