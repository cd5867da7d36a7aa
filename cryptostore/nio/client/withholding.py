"""Devices are told why they are sent no room key, and what others say of theirs is quoted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from uuid import uuid4

from aiohttp import ClientError
from nio import Api, ErrorResponse, MatrixRoom, ToDeviceResponse
from nio.crypto import OutboundGroupSession

from cryptostore.logs import logger

from .device import Device
from .outbound import DevicePair
from .session import Session
from .withheld import EVENT, NO_OLM, UNVERIFIED

_log: Final = logger(__name__)


class Withholding:
    """Says why no key is sent, and why one has not come. `send` is the client's `_send`."""

    def __init__(self, device: Device, session: Session, send: Callable[..., Awaitable[Any]]) -> None:
        self._device = device
        self._session = session
        self._send = send

    async def tell_left_out(self, room: MatrixRoom, session: OutboundGroupSession) -> None:
        """Tell the devices that were left out when a key was shared."""
        codes = self._session.machine.room_devices.reasons_to_withhold(room.room_id, room.users, session)
        if left_out := list(codes.values()).count(UNVERIFIED):
            _log.warning("%d devices in %s get no room key: their owners have not signed them", left_out, room.room_id)
        await self.withhold(room.room_id, session, codes)

    async def withhold(self, room_id: str, session: OutboundGroupSession, codes: Mapping[DevicePair, str]) -> None:
        """Tell devices why they do not get a session's key. A homeserver that does not take it keeps up nothing."""
        if not codes:
            return
        answer = await self._tell(self._messages(room_id, session, codes))
        if isinstance(answer, ErrorResponse):
            _log.warning("could not tell %d devices why they get no key: %s", len(codes), answer)
        else:
            unreached = self._session.machine.unreached
            unreached.told([device for device, code in codes.items() if code == NO_OLM])

    def _messages(self, room_id: str, session: OutboundGroupSession, codes: Mapping[DevicePair, str]) -> dict[str, Any]:
        machine = self._session.machine
        messages: dict[str, dict[str, Any]] = {}
        for (user_id, device_id), code in codes.items():
            messages.setdefault(user_id, {})[device_id] = machine.withheld_content(room_id, session.id, code)
        return {"messages": messages}

    async def _tell(self, content: dict[str, Any]) -> Any:
        method, path, data = Api.to_device(self._device.access_token, EVENT, content, uuid4())
        try:
            return await self._send(ToDeviceResponse, method, path, data)
        except (ClientError, TimeoutError) as error:
            return ErrorResponse(type(error).__name__)
