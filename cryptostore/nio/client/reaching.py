"""Devices that offered no one-time key are tried again, inside the same room key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Final
from uuid import uuid4

from nio import Api, ErrorResponse, LocalProtocolError, MatrixRoom
from nio.crypto import OutboundGroupSession

from cryptostore.logs import logger

from .device import Device
from .key_queries import Claimed
from .outbound import DevicePair
from .prefetch import Prefetching, Wanted
from .responses import KeySent, Shared
from .session import Session
from .sharing_turns import SharingTurns
from .withheld import NO_OLM, UNVERIFIED
from .withholding import Withholding

#: For how many devices one request claims one-time keys.
_CLAIMED_AT_ONCE: Final = 100

_log: Final = logger(__name__)


class Reaching:
    """Goes on trying to reach devices, with growing pauses, whenever something is sent into a room of theirs.

    `claim` asks for one-time keys, and `send` is the client's `_send`.
    """

    def __init__(
        self,
        device: Device,
        session: Session,
        turns: SharingTurns,
        prefetching: Prefetching,
        withholding: Withholding,
        claim: Callable[[Mapping[str, Iterable[str]]], Awaitable[Claimed]],
        send: Callable[..., Awaitable[Any]],
    ) -> None:
        self._device = device
        self._session = session
        self._turns = turns
        self._prefetching = prefetching
        self._withholding = withholding
        self._claim = claim
        self._send = send

    def due_for_claiming(self) -> set[DevicePair]:
        """The devices that nio wants a new session with, and that are not to be left alone now."""
        machine = self._session.machine
        return machine.unreached.due(machine.without_working_session())

    def users_for_claiming(self) -> dict[str, list[str]]:
        """The same, by user. Raises LocalProtocolError if there are none."""
        due = self.due_for_claiming()
        if not due:
            raise LocalProtocolError("no device is to be asked for a one-time key now")
        return _by_user(sorted(due))

    async def claim(self, user_set: Mapping[str, Iterable[str]]) -> Claimed:
        """Ask for one-time keys. Devices that nio wants them of, and that have none, are left alone for a while."""
        machine = self._session.machine
        wanted = machine.without_working_session()
        wanted &= {(user_id, device_id) for user_id, device_ids in user_set.items() for device_id in device_ids}
        answer = await self._claim(user_set)
        still = wanted & self._session.machine.without_working_session()
        self._session.machine.unreached.failed(still)
        self._session.machine.unreached.reached(wanted - still)
        return answer

    async def begin_sessions(self, devices: set[DevicePair]) -> ErrorResponse | None:
        """Begin Olm sessions with these devices. Returns the error that the homeserver answered, if it did."""
        for part in _in_parts(devices):
            answer = await self._claim(part)
            if isinstance(answer, ErrorResponse):
                return answer
        return None

    async def reach_again(self, room: MatrixRoom, ignore_unverified_devices: bool) -> None:
        """Give the room's key, as it is by now, to devices that could not be reached when it was shared."""
        machine = self._session.machine
        session = machine.outbound.in_use(room.room_id)
        if session is None or not session.shared or session.expired:
            # All devices are tried when the next one is shared.
            return
        due = machine.unreached.due(machine.unreached.among(session.users_ignored) - session.users_shared_with)
        if not due:
            return
        with self._turns.taken(room.room_id):
            async with self._prefetching.of(Wanted(partners={user for user, _ in due})):
                await self._share_late(room, session, due, ignore_unverified_devices)

    async def _share_late(
        self, room: MatrixRoom, session: OutboundGroupSession, due: set[DevicePair], ignore_unverified_devices: bool
    ) -> None:
        machine = self._session.machine
        users = {user for user, _ in due}.intersection(room.users)
        present = {(device.user_id, device.id) for device in machine.room_devices.active(users)}
        wanted = {device for device in due & present if machine.room_devices.is_wanted(room.room_id, device)}
        machine.unreached.reached(due - wanted)
        due = wanted
        await self._try_to_begin(due & machine.without_olm_session(room.room_id, users), len(due))
        still = due & self._session.machine.without_olm_session(room.room_id, users)
        self._session.machine.unreached.failed(still)
        untold = dict.fromkeys(self._session.machine.unreached.untold(still), NO_OLM)
        await self._withholding.withhold(room.room_id, session, untold)
        if self._session.machine.outbound.in_use(room.room_id) is session:
            await self._send_late(room, session, due - still, ignore_unverified_devices)

    async def _try_to_begin(self, devices: set[DevicePair], count: int) -> None:
        refused = await self.begin_sessions(devices)
        if refused is not None:
            _log.warning("could not ask for one-time keys of %d devices: %s", count, refused)

    async def _send_late(
        self, room: MatrixRoom, session: OutboundGroupSession, reachable: set[DevicePair], ignore_unverified: bool
    ) -> None:
        fit = self._session.machine.room_devices.fit_now(room.room_id, reachable, ignore_unverified)
        # Those that are not get the next key, when the owner has decided.
        self._session.machine.unreached.reached(reachable - fit)
        await self._withholding.withhold(room.room_id, session, dict.fromkeys(reachable - fit, UNVERIFIED))
        if not fit:
            return
        answer = await self._send_key(room.room_id, session, fit)
        if isinstance(answer, ErrorResponse):
            _log.warning("could not send the key of %s to %d devices: %s", room.room_id, len(fit), answer)
            self._session.machine.unreached.failed(fit)
            return
        session.users_shared_with.update(fit)
        self._note_sent(room.room_id, fit)

    async def _send_key(self, room_id: str, session: OutboundGroupSession, devices: set[DevicePair]) -> Shared:
        messages = self._session.machine.encrypt_room_key(room_id, session, devices)
        method, path, data = Api.to_device(
            self._device.access_token, "m.room.encrypted", {"messages": messages}, uuid4()
        )
        answer: Shared = await self._send(KeySent, method, path, data, response_data=(room_id, devices))
        return answer

    def _note_sent(self, room_id: str, devices: set[DevicePair]) -> None:
        self._session.machine.unreached.reached(devices)
        # It was kept while the request was under way.
        self._session.machine.outbound.note(room_id)
        self._session.store.storage.touch()


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
