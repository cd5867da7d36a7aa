"""What the demo's story must show, told apart from how it was played."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import vodozemac

from .conversation import Reading, Settings, Story
from .relay import Relay


class Check(NamedTuple):
    """One thing that was counted, beside what the count must be."""

    name: str
    expected: int
    found: int

    @property
    def passed(self) -> bool:
        """Whether the count is right."""
        return self.found == self.expected


def checks_of(settings: Settings, story: Story, relay: Relay) -> list[Check]:
    """Every check, in the order in which people want to know."""
    kills = settings.kills
    return [
        Check("messages from Alice that Bob decrypted", settings.messages, _decrypted(story, story.alice, story.bob)),
        Check("messages from Bob that Alice decrypted", settings.messages, _decrypted(story, story.bob, story.alice)),
        Check("times Bob was killed with messages in flight", kills, sum(1 for k in story.kills if k.unacknowledged)),
        # Both start once more at the end.
        Check("later starts that found the first identity", kills + 2, sum(map(_returns, story.identities.values()))),
        Check("old messages that Bob read again after kills", *_reread(story, story.rereadings)),
        Check(
            "messages that fresh processes read at the end",
            4 * settings.messages,
            _readable(story, story.final_readings),
        ),
        Check("Megolm message indices that were used twice", 0, _indices_used_twice(relay.timeline)),
        Check("sync tokens that went back", 0, sum(mailbox.went_back for mailbox in relay.mailboxes.values())),
    ]


def repeated_deliveries(relay: Relay) -> int:
    """How many room events and to-device messages the relay had to deliver more than once."""
    return sum(1 for mailbox in relay.mailboxes.values() for times in mailbox.deliveries.values() if times > 1)


def _decrypted(story: Story, sender: str, reader: str) -> int:
    """The events of `sender` that `reader` decrypted, and never got a wrong answer for."""
    readings = story.readings[reader]
    return sum(
        1
        for event_id, text in story.texts.items()
        if story.senders[event_id] == sender and readings[event_id] == {text}
    )


def _returns(identities: list[Mapping[str, str]]) -> int:
    return sum(1 for identity in identities[1:] if identity == identities[0])


def _reread(story: Story, readings: Iterable[Reading]) -> tuple[int, int]:
    readings = list(readings)
    return sum(len(reading.texts) for reading in readings), _readable(story, readings)


def _readable(story: Story, readings: Iterable[Reading]) -> int:
    return sum(1 for reading in readings for event_id, text in reading.texts.items() if text == story.texts[event_id])


def _indices_used_twice(timeline: Iterable[Mapping[str, Any]]) -> int:
    used = Counter(
        (content["session_id"], vodozemac.MegolmMessage.from_base64(content["ciphertext"]).message_index())
        for content in (event["content"] for event in timeline)
    )
    return sum(times - 1 for times in used.values())
