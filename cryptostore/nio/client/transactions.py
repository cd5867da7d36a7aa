"""Transaction ids that make an answer to an event happen once."""

from __future__ import annotations

import hashlib

from nio import Event


def transaction_id(event: Event | str, purpose: str = "") -> str:
    """A transaction id for what is sent because of an event.

    A callback may run again for an event that was answered already: the process was killed between the answer and the
    token. With the same transaction id the homeserver drops the second answer. `purpose` tells several answers to one
    event apart. Homeservers remember transaction ids for a while only (Synapse: at least 30 minutes), and per device.
    """
    event_id = event if isinstance(event, str) else event.event_id
    return hashlib.sha256(f"{purpose}\0{event_id}".encode()).hexdigest()[:40]
