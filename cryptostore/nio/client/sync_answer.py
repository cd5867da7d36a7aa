"""The answer to a sync, with what nio leaves out of it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from nio import ErrorResponse, SyncResponse


@dataclass
class SyncAnswer(SyncResponse):
    """As nio's, with the algorithms of which the homeserver has a fallback key that it has not handed out yet.

    None where the homeserver does not say, as those do that know no fallback keys.
    """

    unused_fallback_keys: frozenset[str] | None = None

    @classmethod
    def from_dict(cls, parsed_dict: Any) -> SyncResponse | ErrorResponse:
        response: SyncResponse | ErrorResponse = super().from_dict(parsed_dict)
        if isinstance(response, ErrorResponse):
            return response
        known = {field.name: getattr(response, field.name) for field in fields(response) if field.init}
        return cls(**known, unused_fallback_keys=_algorithms(parsed_dict.get("device_unused_fallback_key_types")))


def _algorithms(given: Any) -> frozenset[str] | None:
    if not isinstance(given, list):
        return None
    return frozenset(each for each in given if isinstance(each, str))
