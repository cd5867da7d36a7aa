"""The answer to a key query: malformed keys of one device do not affect other devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
        answer = _with_devices(parsed_dict, _has_what_nio_takes_for_granted)
        response: KeysQueryResponse | ErrorResponse = super().from_dict(answer)
        if isinstance(response, ErrorResponse):
            # One by one takes twice as long.
            response = super().from_dict(_with_devices(answer, _is_accepted))
        if isinstance(response, cls):
            response.cross_signing = {group: parsed_dict.get(group) for group in GROUPS}
        return response


def _with_devices(answer: Any, is_usable: Callable[[str, str, Any], bool]) -> Any:
    """The answer with the devices that are usable."""
    if not isinstance(answer, dict) or not isinstance(answer.get("device_keys"), dict):
        return answer
    users = {user: devices for user, devices in answer["device_keys"].items() if isinstance(devices, dict)}
    return answer | {
        "device_keys": {
            user: {device: keys for device, keys in devices.items() if is_usable(user, device, keys)}
            for user, devices in users.items()
        }
    }


def _has_what_nio_takes_for_granted(user_id: str, device_id: str, keys: Any) -> bool:
    usable = (
        isinstance(keys, dict) and isinstance(keys.get("user_id"), str) and isinstance(keys.get("unsigned", {}), dict)
    )
    return usable or _left_out(user_id, device_id)


def _is_accepted(user_id: str, device_id: str, keys: Any) -> bool:
    parsed = KeysQueryResponse.from_dict({"device_keys": {user_id: {device_id: keys}}})
    return isinstance(parsed, KeysQueryResponse) or _left_out(user_id, device_id)


def _left_out(user_id: str, device_id: str) -> bool:
    _log.warning("left out %s %s, whose keys are malformed", user_id, device_id)
    return False
