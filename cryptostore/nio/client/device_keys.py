"""The answer to a key query: malformed keys of one device do not affect other devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any, Final

from nio import ErrorResponse, KeysQueryResponse

from cryptostore.logs import logger
from cryptostore.nio.trust.key_answers import GROUPS, Judged

#: The cross-signing keys of an answer that has none.
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})

_log: Final = logger(__name__)


class DeviceKeysResponse(KeysQueryResponse):
    """As nio's, without the devices whose keys are malformed: nio would refuse the whole answer, or raise.

    It has the cross-signing keys, too, as they came.
    """

    #: By group, such as `master_keys`.
    cross_signing: Mapping[str, Any] = NOTHING
    #: By user, what is proved; None before that was found out.
    judged: Mapping[str, Judged] | None = None

    @classmethod
    def from_dict(cls, parsed_dict: Any) -> KeysQueryResponse | ErrorResponse:
        by_user = parsed_dict.get("device_keys") if isinstance(parsed_dict, dict) else None
        if not isinstance(by_user, dict):
            # nio knows what error that is.
            answer: KeysQueryResponse | ErrorResponse = super().from_dict(parsed_dict)
            return answer
        users = {user_id: devices for user_id, devices in by_user.items() if isinstance(devices, dict)}
        failures = parsed_dict.get("failures")
        usable = {user_id: _usable(user_id, devices) for user_id, devices in users.items()}
        response = cls(usable, failures if isinstance(failures, dict) else {})
        response.cross_signing = {group: parsed_dict.get(group) for group in GROUPS}
        return response

    def in_parts(self, users: int) -> Iterator[DeviceKeysResponse]:
        """The same answer in several, about so many users each at most."""
        asked = iter(self.device_keys.items())
        while part := dict(islice(asked, users)):
            yield type(self)(part, {})


def _usable(user_id: str, devices: dict[str, Any]) -> dict[str, Any]:
    return {device_id: keys for device_id, keys in devices.items() if _is_usable(user_id, device_id, keys)}


def _is_usable(user_id: str, device_id: str, keys: Any) -> bool:
    """Whether a device has the form that nio takes for granted. nio's own check takes 50 microseconds a device."""
    if isinstance(keys, dict) and _has_form(keys):
        return True
    _log.warning("left out %s %s, whose keys are malformed", user_id, device_id)
    return False


def _has_form(keys: dict[str, Any]) -> bool:
    signatures = keys.get("signatures", {})
    return (
        isinstance(keys.get("user_id"), str)
        and isinstance(keys.get("device_id"), str)
        and isinstance(keys.get("algorithms"), list)
        and all(isinstance(each, str) for each in keys["algorithms"])
        and isinstance(keys.get("unsigned", {}), dict)
        and isinstance(signatures, dict)
        and all(_are_texts(each) for each in (keys.get("keys"), *signatures.values()))
    )


def _are_texts(by_name: Any) -> bool:
    return isinstance(by_name, dict) and all(isinstance(each, str) for each in by_name.values())
