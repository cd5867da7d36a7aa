"""A homeserver in miniature: what it keeps and what it delivers again.

It knows public keys and ciphertexts only. Everything that it hands out stays on its list until the recipient has asked
for what comes *after* it: the `since` of a sync is the acknowledgement, as in the Matrix specification.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

#: How many events and to-device messages one sync delivers at most: small, so that a kill rarely meets an idle client.
WINDOW: Final = 5


@dataclass(frozen=True)
class Delivery:
    """One thing on its way: a to-device message for one user, or a room event for all."""

    position: int
    event: Mapping[str, Any]
    to_device_of: str | None = None


@dataclass
class Mailbox:
    """What one user's device still has to get."""

    waiting: list[Delivery] = field(default_factory=list)
    acknowledged: int = 0
    deliveries: Counter[int] = field(default_factory=Counter)
    #: How often a sync named an older position than one before it: a client that forgot.
    went_back: int = 0


class Relay:
    """The devices' public keys, their mailboxes, and one encrypted room with all of them in it."""

    def __init__(self, room_id: str, members: Iterable[str]) -> None:
        self.room_id: Final = room_id
        self.mailboxes: Final = {user: Mailbox() for user in members}
        #: The room's events, oldest first.
        self.timeline: Final[list[Mapping[str, Any]]] = []
        self._positions = itertools.count(1)
        self._transactions: dict[tuple[str, str], str] = {}
        self._device_keys: dict[str, dict[str, Any]] = defaultdict(dict)
        self._one_time_keys: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)

    def upload_keys(self, user_id: str, device_id: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """POST /keys/upload."""
        if "device_keys" in content:
            self._device_keys[user_id][device_id] = content["device_keys"]
        keys = self._one_time_keys[user_id, device_id]
        keys.update(content["one_time_keys"])
        return {"one_time_key_counts": {"curve25519": 0, "signed_curve25519": len(keys)}}

    def everybody_has_keys(self) -> bool:
        """Whether each member has uploaded device keys."""
        return all(user in self._device_keys for user in self.mailboxes)

    def query_keys(self) -> dict[str, Any]:
        """POST /keys/query, for all members."""
        return {"device_keys": dict(self._device_keys), "failures": {}}

    def claim_keys(self, wanted: Mapping[str, Iterable[str]]) -> dict[str, Any]:
        """POST /keys/claim: each one-time key is handed out once."""
        claimed: dict[str, dict[str, Any]] = defaultdict(dict)
        for user_id, device_ids in wanted.items():
            for device_id in device_ids:
                key_id, key = self._one_time_keys[user_id, device_id].popitem()
                claimed[user_id][device_id] = {key_id: key}
        return {"one_time_keys": dict(claimed), "failures": {}}

    def send_to_device(self, sender: str, messages: Mapping[str, Mapping[str, Any]]) -> None:
        """PUT /sendToDevice. Each user here has one device."""
        for recipient, by_device in messages.items():
            for content in by_device.values():
                event = {"type": "m.room.encrypted", "sender": sender, "content": content}
                self._deliver(Delivery(next(self._positions), event, to_device_of=recipient))

    def send_event(self, sender: str, transaction: str, content: Mapping[str, Any]) -> str:
        """PUT /rooms/…/send. The same transaction again is the same event."""
        if (sender, transaction) not in self._transactions:
            position = next(self._positions)
            event_id = f"$event-{position}"
            event = {
                "type": "m.room.encrypted",
                "event_id": event_id,
                "sender": sender,
                "origin_server_ts": position,
                "room_id": self.room_id,
                "content": content,
            }
            self._transactions[sender, transaction] = event_id
            self.timeline.append(event)
            self._deliver(Delivery(position, event))
        return self._transactions[sender, transaction]

    def acknowledge(self, user_id: str, since: str) -> None:
        """The `since` of a GET /sync: all up to it is with the client for good, and is forgotten here."""
        mailbox = self.mailboxes[user_id]
        position = int(since or 0)
        if position < mailbox.acknowledged:
            mailbox.went_back += 1
        mailbox.acknowledged = max(mailbox.acknowledged, position)
        mailbox.waiting = [delivery for delivery in mailbox.waiting if delivery.position > position]

    def deliver(self, user_id: str) -> dict[str, Any]:
        """The answer to a GET /sync: the next events, room keys among them, and the position to acknowledge."""
        mailbox = self.mailboxes[user_id]
        window = mailbox.waiting[:WINDOW]
        mailbox.deliveries.update(delivery.position for delivery in window)
        return {
            "to_device": [delivery.event for delivery in window if delivery.to_device_of],
            "timeline": [delivery.event for delivery in window if not delivery.to_device_of],
            "next_batch": str(window[-1].position if window else mailbox.acknowledged),
        }

    def unacknowledged_messages(self, user_id: str) -> int:
        """How many room events of others the user has not acknowledged."""
        waiting = self.mailboxes[user_id].waiting
        return sum(1 for each in waiting if not each.to_device_of and each.event["sender"] != user_id)

    def history(self, since: str) -> list[Mapping[str, Any]]:
        """GET /rooms/…/messages: the room's events up to a position."""
        last = int(since or 0)
        return [event for event in self.timeline if event["origin_server_ts"] <= last]

    def _deliver(self, delivery: Delivery) -> None:
        for user_id, mailbox in self.mailboxes.items():
            if delivery.to_device_of in (None, user_id):
                mailbox.waiting.append(delivery)
