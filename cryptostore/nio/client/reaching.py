"""Devices that offered no one-time key are tried again, inside the same room key."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any, Final
from uuid import uuid4

from nio import Api, ErrorResponse, MatrixRoom, ShareGroupSessionError, ShareGroupSessionResponse
from nio.crypto import OutboundGroupSession

from cryptostore.logs import logger

from .outbound import DevicePair
from .prefetch import Wanted
from .withheld import NO_OLM, UNVERIFIED
from .withholding import WithholdingClient

#: For how many devices one request claims one-time keys.
_CLAIMED_AT_ONCE: Final = 100

_log: Final = logger(__name__)

Shared = ShareGroupSessionResponse | ShareGroupSessionError


class KeySent(ShareGroupSessionResponse):
    """The answer to one request with keys.

    nio's own reads an error's fields in the wrong order: a server that is busy logs the client out or makes it raise.
    """

    @classmethod
    def from_dict(cls, parsed_dict: Any, room_id: str, users_shared_with: set[DevicePair]) -> Shared:
        if isinstance(parsed_dict, dict) and "errcode" not in parsed_dict:
            return cls(room_id, users_shared_with)
        error = ErrorResponse.from_dict(parsed_dict)
        return ShareGroupSessionError(
            error.message, error.status_code, error.retry_after_ms, error.soft_logout, room_id, users_shared_with
        )


class ReachingClient(WithholdingClient):
    """A client that goes on trying to reach devices, with growing pauses, whenever it sends into a room of theirs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Rooms whose session became unfit while it was being shared.
        self._overtaken: set[str] = set()

    async def _reach_again(self, room: MatrixRoom, ignore_unverified_devices: bool) -> None:
        """Give the room's key, as it is by now, to devices that could not be reached when it was shared."""
        unreached = self.machine.unreached
        session = self.machine.outbound.in_use(room.room_id)
        if session is None or not session.shared or session.expired:
            # All devices are tried when the next one is shared.
            return
        due = unreached.due(unreached.among(session.users_ignored) - session.users_shared_with)
        if not due:
            return
        # Others that send wait, as for any sharing.
        self.sharing_session[room.room_id] = asyncio.Event()
        try:
            async with self.prefetched(Wanted(partners={user for user, _ in due})):
                await self._share_late(room, session, due, ignore_unverified_devices)
        finally:
            self._overtaken.discard(room.room_id)
            self.sharing_session.pop(room.room_id).set()

    async def _share_late(
        self, room: MatrixRoom, session: OutboundGroupSession, due: set[DevicePair], ignore_unverified_devices: bool
    ) -> None:
        users = {user for user, _ in due}.intersection(room.users)
        absent = due - self._active_devices(users)
        self.machine.unreached.reached(absent)
        due -= absent
        refused = await self._claim(due & self.machine.without_olm_session(users))
        if refused is not None:
            _log.warning("could not ask for one-time keys of %d devices: %s", len(due), refused)
        still = due & self.machine.without_olm_session(users)
        self.machine.unreached.failed(still)
        await self._withhold(room.room_id, session, dict.fromkeys(self.machine.unreached.untold(still), NO_OLM))
        if self.machine.outbound.in_use(room.room_id) is session:
            await self._send_late(room, session, due - still, ignore_unverified_devices)

    async def _send_late(
        self, room: MatrixRoom, session: OutboundGroupSession, reachable: set[DevicePair], ignore_unverified: bool
    ) -> None:
        fit = self.machine.fit_for_keys(reachable, ignore_unverified)
        # Those that are not get the next key, when the owner has decided.
        self.machine.unreached.reached(reachable - fit)
        await self._withhold(room.room_id, session, dict.fromkeys(reachable - fit, UNVERIFIED))
        if not fit:
            return
        messages = self.machine.encrypt_room_key(room.room_id, session, fit)
        method, path, data = Api.to_device(self.access_token, "m.room.encrypted", {"messages": messages}, uuid4())
        answer = await self._send(KeySent, method, path, data, response_data=(room.room_id, fit))
        if isinstance(answer, ErrorResponse):
            _log.warning("could not send the key of %s to %d devices: %s", room.room_id, len(fit), answer)
            self.machine.unreached.failed(fit)
            return
        session.users_shared_with.update(fit)
        self.machine.unreached.reached(fit)
        # It was kept while the request was under way.
        self.machine.outbound.note(room.room_id)
        self.production_store.storage.touch()

    async def _claim(self, devices: set[DevicePair]) -> ErrorResponse | None:
        """Begin Olm sessions with these devices. Returns the error that the homeserver answered, if it did."""
        for part in _in_parts(devices):
            answer = await self.keys_claim(part)
            if isinstance(answer, ErrorResponse):
                return answer
        return None

    def _active_devices(self, users: Iterable[str]) -> set[DevicePair]:
        return {(user, device.id) for user in users for device in self.device_store.active_user_devices(user)}


def _in_parts(devices: Iterable[DevicePair]) -> Iterator[dict[str, list[str]]]:
    """The same devices in several requests, since handling one answer holds the event loop."""
    pairs = sorted(devices)
    for start in range(0, len(pairs), _CLAIMED_AT_ONCE):
        part: dict[str, list[str]] = {}
        for user, device in pairs[start : start + _CLAIMED_AT_ONCE]:
            part.setdefault(user, []).append(device)
        yield part
