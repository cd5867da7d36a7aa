"""Sharing a room's key: a session counts as shared when every device that should have its key has it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol
from uuid import uuid4

from nio import (
    Api,
    ErrorResponse,
    JoinedMembersResponse,
    KeysQueryError,
    KeysQueryResponse,
    LocalProtocolError,
    MatrixRoom,
    RoomSendError,
    RoomSendResponse,
    ShareGroupSessionError,
    ShareGroupSessionResponse,
)
from nio.crypto import OutboundGroupSession
from nio.exceptions import MembersSyncError

from cryptostore.logs import logger

from .device import Device
from .outbound import DevicePair
from .prefetch import Prefetching, Wanted
from .reaching import Reaching
from .responses import KeySent, Shared
from .session import Session
from .sharing_turns import SharingTurns
from .threads import in_thread
from .withholding import Withholding

#: How often sharing begins again because members or devices changed in the middle of it.
_ROUNDS: Final = 5

_log: Final = logger(__name__)

#: What becomes of a message.
Sent = RoomSendResponse | RoomSendError


class Requests(Protocol):
    """What sharing asks the homeserver, and the rooms that it shares keys in."""

    rooms: dict[str, MatrixRoom]

    async def joined_members(self, room_id: str) -> Any:
        """Learn who is in the room."""

    async def keys_query(self) -> KeysQueryResponse | KeysQueryError:
        """Learn the devices of users who are out of date."""

    async def sign_before_room_keys(self) -> None:
        """Complete the signature of this device that an earlier start began."""


class RoomKeySharing:
    """Sees to it that every device that should read a message has the room's key before it is sent.

    `send` is the client's `_send`.
    """

    def __init__(
        self,
        device: Device,
        session: Session,
        requests: Requests,
        turns: SharingTurns,
        prefetching: Prefetching,
        withholding: Withholding,
        reaching: Reaching,
        send: Callable[..., Awaitable[Any]],
    ) -> None:
        self._device = device
        self._session = session
        self._requests = requests
        self._turns = turns
        self._prefetching = prefetching
        self._withholding = withholding
        self._reaching = reaching
        self._send = send

    async def make_ready(self, room_id: str, ignore_unverified_devices: bool) -> None:
        """Do what comes before a message into this room.

        Raises MembersSyncError if the homeserver does not say who is in it.
        """
        room = self._requests.rooms.get(room_id)
        if room is None or not room.encrypted:
            return
        await self._requests.sign_before_room_keys()
        await self._learn_members(room)
        if self._session.machine.outbound.is_restored(room_id):
            await self._judge(room)
        await self._turns.wait(room_id)
        await self._reaching.reach_again(room, ignore_unverified_devices)

    async def share(self, room_id: str, ignore_unverified_devices: bool) -> Shared:
        """Share the room's key: see `share_group_session` of the client."""
        room = self._room_to_share_with(room_id)
        with self._turns.taken(room_id):
            await self._requests.sign_before_room_keys()
            await self._learn_members(room)
            for _ in range(_ROUNDS):
                outcome = await self._share_once(room, ignore_unverified_devices)
                if outcome is not None:
                    return outcome
            return ShareGroupSessionError("the room's members or their devices kept changing", room_id=room_id)

    def invalidate(self, room_id: str) -> None:
        """Never use the room's key again. Durable before the next send."""
        self._session.machine.outbound.forget_restored(room_id)
        self.invalidate_live(room_id)

    def invalidate_live(self, room_id: str) -> None:
        """Never use the key of this process again; one of an earlier process is judged by the members instead."""
        self._turns.overtake(room_id)
        sessions = self._session.machine.outbound_group_sessions
        # nio keeps a session that is not shared yet, although some may have its key: a request without an answer.
        if sessions.get(room_id) is not None:
            del sessions[room_id]
        self._session.store.storage.touch()

    def note_members(self, response: JoinedMembersResponse, handle: Callable[[JoinedMembersResponse], None]) -> None:
        """Let nio handle who is in a room. If that changed, its key must not be used again."""
        room = self._requests.rooms.get(response.room_id)
        before = set(room.users) if room else set()
        handle(response)
        # The member's own event no longer changes the list when it comes, so nio would keep the session.
        if room and set(room.users) != before and self._session.is_open:
            self.invalidate_live(response.room_id)

    def _room_to_share_with(self, room_id: str) -> MatrixRoom:
        room: MatrixRoom | None = self._requests.rooms.get(room_id)
        if room is None:
            raise LocalProtocolError(f"No such room with id {room_id}")
        if not room.encrypted:
            raise LocalProtocolError(f"Room with id {room_id} is not encrypted")
        if room_id in self._turns:
            raise LocalProtocolError(f"Already sharing a group session for {room_id}")
        return room

    async def _learn_members(self, room: MatrixRoom) -> None:
        """Ask who is in the room: a key that is shared by half a list would not be shared again by the whole."""
        if not room.members_synced:
            await self._requests.joined_members(room.room_id)
        if not room.members_synced:
            raise MembersSyncError(f"the homeserver did not say who is in {room.room_id}; nothing was sent")

    async def _learn_devices(self, room: MatrixRoom) -> KeysQueryResponse | KeysQueryError | None:
        """Ask for the devices of new members, and of those who have others now."""
        # nio does it when all of a sync's callbacks have run.
        self._session.machine.update_tracked_users(room)  # type: ignore[no-untyped-call]  # nio has no annotation
        return await self._requests.keys_query() if self._outdated(room) else None

    async def _judge(self, room: MatrixRoom) -> None:
        """Decide about the room's session of an earlier process, from its members and devices as they are now."""
        await self._learn_devices(room)
        shares = await in_thread(self._session.threads, self._session.machine.outbound.read_shares, room.room_id)
        async with self._prefetching.of(Wanted(users=set(room.users))):
            if self._outdated(room):
                self._session.machine.outbound.forget_restored(room.room_id)
            # Another send may have judged meanwhile.
            elif self._session.machine.outbound.is_restored(room.room_id):
                self._session.machine.judge_outbound_session(room.room_id, room.users, shares)

    async def _share_once(self, room: MatrixRoom, ignore_unverified_devices: bool) -> Shared | None:
        """One round. None if another one is needed."""
        answer = await self._learn_devices(room)
        if isinstance(answer, ErrorResponse):
            return _refused(answer, room)
        left_out = self._outdated(room).difference(answer.device_keys if answer else ())
        if left_out:
            _log.warning("the devices of %d members are unknown; they cannot read what is sent", len(left_out))
        self._turns.begin_round(room.room_id)
        async with self._prefetching.of(Wanted(partners=set(room.users))):
            return await self._share_with_members(room, left_out, ignore_unverified_devices)

    async def _share_with_members(
        self, room: MatrixRoom, left_out: set[str], ignore_unverified_devices: bool
    ) -> Shared | None:
        missing = self._session.machine.without_olm_session(room.room_id, room.users)
        asked = self._session.machine.unreached.due(missing)
        refused = await self._reaching.begin_sessions(asked)
        if refused is not None:
            return _refused(refused, room)
        requests = await self._prepared(room, ignore_unverified_devices)
        session = self._session.machine.outbound_group_sessions.get(room.room_id)
        outcomes = await asyncio.gather(*requests, return_exceptions=True)
        # It was kept while the requests were under way.
        self._session.machine.outbound.note(room.room_id)
        still = missing & self._session.machine.without_olm_session(room.room_id, {user for user, _ in missing})
        self._session.machine.unreached.failed(asked & still)
        try:
            outcome = self._conclude(room, session, still, left_out, outcomes)
        finally:
            self._session.store.storage.touch()
        if session is not None and session.shared:
            await self._withholding.tell_left_out(room, session)
        return outcome

    async def _prepared(self, room: MatrixRoom, ignore_unverified_devices: bool) -> list[Any]:
        prepared = []
        for sharing_with, content in self._session.machine.share_group_session_parallel(
            room.room_id, list(room.users), ignore_unverified_devices=ignore_unverified_devices
        ):
            prepared.append(
                (*Api.to_device(self._device.access_token, "m.room.encrypted", content, uuid4()), sharing_with)
            )
            # Encrypting for a thousand devices takes a while; others get their turn.
            await asyncio.sleep(0)
        return [
            self._send(KeySent, method, path, data, response_data=(room.room_id, sharing_with))
            for method, path, data, sharing_with in prepared
        ]

    def _conclude(
        self,
        room: MatrixRoom,
        session: OutboundGroupSession | None,
        unreached: set[DevicePair],
        left_out: set[str],
        outcomes: list[Any],
    ) -> Shared | None:
        for outcome in outcomes:
            if session is not None and isinstance(outcome, ShareGroupSessionResponse):
                session.users_shared_with.update(outcome.users_shared_with)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
            if isinstance(outcome, ErrorResponse):
                return _refused(outcome, room)
        present = self._session.machine.outbound_group_sessions.get(room.room_id)
        if session is None or present is not session or self._turns.is_overtaken(room.room_id):
            self.invalidate_live(room.room_id)
            return None
        self._leave_out(session, unreached)
        if self._lacks_its_key(room, session, left_out):
            return None
        session.shared = True
        return ShareGroupSessionResponse(room.room_id, set(session.users_shared_with))

    def _leave_out(self, session: OutboundGroupSession, unreached: set[DevicePair]) -> None:
        """Devices for which the server had no one-time key, or none that its owner signed, get this key later."""
        if unreached - session.users_ignored:
            _log.warning("%d devices offer no one-time key; they cannot read what is sent now", len(unreached))
        session.users_ignored |= unreached
        self._session.machine.unreached.reached(session.users_shared_with)

    def _lacks_its_key(self, room: MatrixRoom, session: OutboundGroupSession, left_out: set[str]) -> bool:
        """Whether a member has a device without the session's key, or may have one by now."""
        given = session.users_shared_with | session.users_ignored
        return bool(self._outdated(room) - left_out) or any(
            (device.user_id, device.id) not in given for device in self._session.machine.room_devices.active(room.users)
        )

    def _outdated(self, room: MatrixRoom) -> set[str]:
        return self._session.machine.users_for_key_query & set(room.users)


def _refused(answer: ErrorResponse, room: MatrixRoom) -> ShareGroupSessionError:
    return ShareGroupSessionError(answer.message, answer.status_code, room_id=room.room_id)
