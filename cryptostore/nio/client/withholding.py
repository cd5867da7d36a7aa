"""Devices are told why they are sent no room key, and what others say of theirs is quoted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

from aiohttp import ClientError
from nio import Api, ErrorResponse, MatrixRoom, ToDeviceResponse
from nio.crypto import OutboundGroupSession
from nio.events import MegolmEvent

from cryptostore.logs import logger
from cryptostore.records import WithheldKey

from .outbound import DevicePair
from .prefetch import PrefetchingClient
from .withheld import EVENT, NO_OLM

_log: Final = logger(__name__)


class _Told(ToDeviceResponse):
    """The answer to what devices are told."""

    @classmethod
    def from_dict(cls, parsed_dict: Any) -> ToDeviceResponse | ErrorResponse:
        is_error = not isinstance(parsed_dict, dict) or "errcode" in parsed_dict
        return ErrorResponse.from_dict(parsed_dict) if is_error else cls(None)  # type: ignore[arg-type]  # of several


class WithholdingClient(PrefetchingClient):
    """A client that says why it sends no key, and why one has not come."""

    def why_undecryptable(self, event: MegolmEvent) -> WithheldKey | None:
        """What the sender of a message said of its key, which it did not send; None if it said nothing.

        `code` is one of the specification, such as `m.unverified`, or another. It and `reason` are the sender's texts,
        of at most 256 characters. The database is not asked. Raises StoreClosed if the client is not open.
        """
        return self.machine.withheld.about(event)

    async def _tell_left_out(self, room: MatrixRoom, session: OutboundGroupSession) -> None:
        """Tell the devices that were left out when a key was shared."""
        await self._withhold(room.room_id, session, self.machine.reasons_to_withhold(room.users, session))

    async def _withhold(self, room_id: str, session: OutboundGroupSession, codes: Mapping[DevicePair, str]) -> None:
        """Tell devices why they do not get a session's key. A homeserver that does not take it keeps up nothing."""
        if not codes:
            return
        messages: dict[str, dict[str, Any]] = {}
        for (user_id, device_id), code in codes.items():
            messages.setdefault(user_id, {})[device_id] = self.machine.withheld_content(room_id, session.id, code)
        method, path, data = Api.to_device(self.access_token, EVENT, {"messages": messages}, uuid4())
        try:
            answer = await self._send(_Told, method, path, data)
        except (ClientError, TimeoutError) as error:
            answer = ErrorResponse(type(error).__name__)
        if isinstance(answer, ErrorResponse):
            _log.warning("could not tell %d devices why they get no key: %s", len(codes), answer)
        else:
            self.machine.unreached.told([device for device, code in codes.items() if code == NO_OLM])
