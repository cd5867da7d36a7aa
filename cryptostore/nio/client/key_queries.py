"""Other users' devices, and one-time keys of theirs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from nio import Api, KeysClaimError, KeysClaimResponse, KeysQueryError, KeysQueryResponse, LocalProtocolError

from .device import Device
from .device_keys import DeviceKeysResponse
from .session import Session

Claimed = KeysClaimResponse | KeysClaimError


class KeyQueries:
    """Asks for keys. `send` is the client's `_send`, which also handles the answer."""

    def __init__(self, device: Device, session: Session, send: Callable[..., Awaitable[Any]]) -> None:
        self._device = device
        self._session = session
        self._send = send

    async def query(self) -> KeysQueryResponse | KeysQueryError:
        """Ask about the users who are out of date; those who change meanwhile are asked about again."""
        users = self._session.machine.users_for_key_query if self._session.is_open else set()
        if not users:
            raise LocalProtocolError("No key query required.")
        tracking = self._session.machine.tracking
        asked = tracking.generations(users)
        method, path, data = Api.keys_query(self._device.access_token, users)
        response: KeysQueryResponse | KeysQueryError = await self._send(DeviceKeysResponse, method, path, data)
        if isinstance(response, KeysQueryResponse):
            self._session.machine.tracking.answered(asked)
        return response

    async def claim(self, user_set: Mapping[str, Iterable[str]]) -> Claimed:
        """Begin Olm sessions. nio's raises TypeError where the homeserver refuses."""
        method, path, data = Api.keys_claim(self._device.access_token, dict(user_set))
        response: Claimed = await self._send(KeysClaimResponse, method, path, data, response_data=("",))
        return response
