"""Devices that offered no one-time key are tried again, inside the same room key."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from uuid import uuid4

from nio import (
    Api,
    ErrorResponse,
    KeysClaimError,
    KeysClaimResponse,
    LocalProtocolError,
    MatrixRoom,
    ShareGroupSessionError,
    ShareGroupSessionResponse,
)
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

    @property
    def should_claim_keys(self) -> bool:
        """As nio's, but not while all devices that lack a one-time key are to be left alone."""
        return self.store is not None and bool(self._due_for_claiming())

    def get_users_for_key_claiming(self) -> dict[str, list[str]]:
        """As nio's, without devices whose pause is not over. Raises LocalProtocolError if there are none."""
        due = self._due_for_claiming()
        if not due:
            raise LocalProtocolError("no device is to be asked for a one-time key now")
        return _by_user(sorted(due))

    async def keys_claim(self, user_set: Mapping[str, Iterable[str]]) -> KeysClaimResponse | KeysClaimError:
        """As nio's. Devices that nio asks for, and that have no one-time key, are left alone for a while."""
        wanted = self.machine.without_working_session()
        wanted &= {(user_id, device_id) for user_id, device_ids in user_set.items() for device_id in device_ids}
        answer: KeysClaimResponse | KeysClaimError = await super().keys_claim(user_set)
        still = wanted & self.machine.without_working_session()
        self.machine.unreached.failed(still)
        self.machine.unreached.reached(wanted - still)
        return answer

    def _due_for_claiming(self) -> set[DevicePair]:
        return self.machine.unreached.due(self.machine.without_working_session())

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
            answer = await super().keys_claim(part)
            if isinstance(answer, ErrorResponse):
                return answer
        return None

    def _active_devices(self, users: Iterable[str]) -> set[DevicePair]:
        return {(user, device.id) for user in users for device in self.device_store.active_user_devices(user)}


def _in_parts(devices: Iterable[DevicePair]) -> Iterator[dict[str, list[str]]]:
    """The same devices in several requests, since handling one answer holds the event loop."""
    pairs = sorted(devices)
    for start in range(0, len(pairs), _CLAIMED_AT_ONCE):
        yield _by_user(pairs[start : start + _CLAIMED_AT_ONCE])


def _by_user(devices: Iterable[DevicePair]) -> dict[str, list[str]]:
    by_user: dict[str, list[str]] = {}
    for user_id, device_id in devices:
        by_user.setdefault(user_id, []).append(device_id)
    return by_user
