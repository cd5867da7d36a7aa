"""Events as JSON documents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from cryptostore.records.record import Account

#: Digits after the point: microseconds.
_DIGITS: Final = 6


def document(event: str, facts: Mapping[str, object]) -> dict[str, Any]:
    """What a log keeps of an event: its name, the account, and what else can be written down."""
    found: dict[str, Any] = {"event": event}
    for name, fact in facts.items():
        if isinstance(fact, Account):
            found |= {"user_id": fact.user_id, "device_id": fact.device_id}
        elif not callable(fact):
            found[name] = _plain(fact)
    return found


def line(document: Mapping[str, Any]) -> str:
    """One line of JSON. All of it is visible ASCII, so that no id forges a line or steers a terminal."""
    # The one control that JSON leaves as it is.
    return json.dumps(document).replace("\x7f", "\\u007f")


def _plain(fact: object) -> Any:
    if isinstance(fact, datetime):
        return fact.isoformat()
    if isinstance(fact, float):
        return round(fact, _DIGITS)
    if isinstance(fact, tuple):
        return [_plain(each) for each in fact]
    return fact.hex() if isinstance(fact, bytes) else fact
