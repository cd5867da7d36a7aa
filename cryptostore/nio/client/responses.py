"""Answers that nio leaves something out of, or reads in the wrong order."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

from nio import (
    ErrorResponse,
    ShareGroupSessionError,
    ShareGroupSessionResponse,
    SyncResponse,
    ToDeviceError,
    ToDeviceMessage,
    ToDeviceResponse,
)

from .outbound import DevicePair

Shared = ShareGroupSessionResponse | ShareGroupSessionError


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


class ToDeviceAnswer(ToDeviceResponse):
    """The answer to messages to devices.

    nio's own takes the message for the time to wait, and raises where there are too many requests.
    """

    @classmethod
    def from_dict(cls, parsed_dict: Any, message: ToDeviceMessage | None = None) -> ToDeviceResponse | ToDeviceError:
        if _is_done(parsed_dict):
            return cls(message)  # type: ignore[arg-type]  # of several messages
        error = ErrorResponse.from_dict(parsed_dict)
        return ToDeviceError(error.message, error.status_code, error.retry_after_ms, error.soft_logout, message)


class KeySent(ShareGroupSessionResponse):
    """The answer to one request with keys.

    nio's own reads an error's fields in the wrong order: a server that is busy logs the client out or makes it raise.
    """

    @classmethod
    def from_dict(cls, parsed_dict: Any, room_id: str, users_shared_with: set[DevicePair]) -> Shared:
        if _is_done(parsed_dict):
            return cls(room_id, users_shared_with)
        error = ErrorResponse.from_dict(parsed_dict)
        return ShareGroupSessionError(
            error.message, error.status_code, error.retry_after_ms, error.soft_logout, room_id, users_shared_with
        )


#: What takes the place of nio's.
OURS: Final[dict[type, type]] = {SyncResponse: SyncAnswer, ToDeviceResponse: ToDeviceAnswer}


def _is_done(parsed_dict: Any) -> bool:
    return isinstance(parsed_dict, dict) and "errcode" not in parsed_dict


def _algorithms(given: Any) -> frozenset[str] | None:
    if not isinstance(given, list):
        return None
    return frozenset(each for each in given if isinstance(each, str))
