"""Sharing a room's key: a session counts as shared when every device that should have its key has it."""

from __future__ import annotations

import asyncio
from typing import Any, Final
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

from .identity import IdentityClient
from .outbound import DevicePair
from .prefetch import Wanted
from .reaching import KeySent, ReachingClient, Shared
from .threads import in_thread

#: How often sharing begins again because members or devices changed in the middle of it.
_ROUNDS: Final = 5

_log: Final = logger(__name__)


class SharingClient(ReachingClient, IdentityClient):
    """A client that sends a message only after every device that should read it has the key."""

    async def room_send(
        self,
        room_id: str,
        message_type: str,
        content: dict[Any, Any],
        tx_id: str | None = None,
        ignore_unverified_devices: bool = False,
    ) -> RoomSendResponse | RoomSendError:
        """As nio's. The ratchet is durable before the message leaves.

        Raises what `flush` raises, with nothing sent, GroupEncryptionError if the room's key could not be shared, and
        MembersSyncError if the homeserver did not say who is in the room.
        """
        # Without an open account nio would send plaintext.
        await self.open_restored()
        room = self.rooms.get(room_id)
        if room is not None and room.encrypted:
            await self._learn_members(room)
            if self.machine.outbound.is_restored(room_id):
                await self._judge(room)
            # nio would wait only once, and encrypt without asking what became of it.
            while room_id in self.sharing_session:
                await self.sharing_session[room_id].wait()
            await self._reach_again(room, ignore_unverified_devices)
        response: RoomSendResponse | RoomSendError = await super().room_send(
            room_id, message_type, content, tx_id, ignore_unverified_devices
        )
        return response

    async def share_group_session(self, room_id: str, ignore_unverified_devices: bool = False) -> Shared:
        """As nio's, but an error that the server answers is returned, and one of the store is raised.

        The session counts as shared only when every active device of every member has its key, is blacklisted, or
        offers no one-time key to send it with. Members whose devices the homeserver does not know are not waited for.

        Raises MembersSyncError if the homeserver does not say who is in the room.
        """
        room = self._room_to_share_with(room_id)
        self.sharing_session[room_id] = asyncio.Event()
        try:
            await self._learn_members(room)
            for _ in range(_ROUNDS):
                outcome = await self._share_once(room, ignore_unverified_devices)
                if outcome is not None:
                    return outcome
            return ShareGroupSessionError("the room's members or their devices kept changing", room_id=room_id)
        finally:
            self._overtaken.discard(room_id)
            self.sharing_session.pop(room_id).set()

    def invalidate_outbound_session(self, room_id: str) -> None:
        """Never use the room's key again. Durable before the next send."""
        self.machine.outbound.forget_restored(room_id)
        self._invalidate_live_session(room_id)

    def _room_to_share_with(self, room_id: str) -> MatrixRoom:
        room: MatrixRoom | None = self.rooms.get(room_id)
        if room is None:
            raise LocalProtocolError(f"No such room with id {room_id}")
        if not room.encrypted:
            raise LocalProtocolError(f"Room with id {room_id} is not encrypted")
        if room_id in self.sharing_session:
            raise LocalProtocolError(f"Already sharing a group session for {room_id}")
        return room

    async def _learn_members(self, room: MatrixRoom) -> None:
        """Ask who is in the room: a key that is shared by half a list would not be shared again by the whole."""
        if not room.members_synced:
            await self.joined_members(room.room_id)
        if not room.members_synced:
            raise MembersSyncError(f"the homeserver did not say who is in {room.room_id}; nothing was sent")

    async def _learn_devices(self, room: MatrixRoom) -> KeysQueryResponse | KeysQueryError | None:
        """Ask for the devices of new members, and of those who have others now."""
        # nio does it when all of a sync's callbacks have run.
        self.machine.update_tracked_users(room)  # type: ignore[no-untyped-call]  # nio has no annotation
        return await self.keys_query() if self._outdated(room) else None

    async def _judge(self, room: MatrixRoom) -> None:
        """Decide about the room's session of an earlier process, from its members and devices as they are now."""
        await self._learn_devices(room)
        shares = await in_thread(self.threads, self.machine.outbound.read_shares, room.room_id)
        async with self.prefetched(Wanted(users=set(room.users))):
            if self._outdated(room):
                self.machine.outbound.forget_restored(room.room_id)
            # Another send may have judged meanwhile.
            elif self.machine.outbound.is_restored(room.room_id):
                self.machine.judge_outbound_session(room.room_id, room.users, shares)

    async def _share_once(self, room: MatrixRoom, ignore_unverified_devices: bool) -> Shared | None:
        """One round. None if another one is needed."""
        answer = await self._learn_devices(room)
        if isinstance(answer, ErrorResponse):
            return _refused(answer, room)
        left_out = self._outdated(room).difference(answer.device_keys if answer else ())
        if left_out:
            _log.warning("the devices of %d members are unknown; they cannot read what is sent", len(left_out))
        self._overtaken.discard(room.room_id)
        async with self.prefetched(Wanted(partners=set(room.users))):
            return await self._share_with_members(room, left_out, ignore_unverified_devices)

    async def _share_with_members(
        self, room: MatrixRoom, left_out: set[str], ignore_unverified_devices: bool
    ) -> Shared | None:
        missing = self.machine.without_olm_session(room.users)
        asked = self.machine.unreached.due(missing)
        refused = await self._claim(asked)
        if refused is not None:
            return _refused(refused, room)
        requests = await self._requests(room, ignore_unverified_devices)
        session = self.machine.outbound_group_sessions.get(room.room_id)
        outcomes = await asyncio.gather(*requests, return_exceptions=True)
        # It was kept while the requests were under way.
        self.machine.outbound.note(room.room_id)
        still = missing & self.machine.without_olm_session({user for user, _ in missing})
        self.machine.unreached.failed(asked & still)
        try:
            outcome = self._conclude(room, session, still, left_out, outcomes)
        finally:
            self.production_store.storage.touch()
        if session is not None and session.shared:
            await self._tell_left_out(room, session)
        return outcome

    async def _requests(self, room: MatrixRoom, ignore_unverified_devices: bool) -> list[Any]:
        prepared = []
        for sharing_with, content in self.machine.share_group_session_parallel(
            room.room_id, list(room.users), ignore_unverified_devices=ignore_unverified_devices
        ):
            prepared.append((*Api.to_device(self.access_token, "m.room.encrypted", content, uuid4()), sharing_with))
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
        present = self.machine.outbound_group_sessions.get(room.room_id)
        if session is None or present is not session or room.room_id in self._overtaken:
            self._invalidate_live_session(room.room_id)
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
        self.machine.unreached.reached(session.users_shared_with)

    def _lacks_its_key(self, room: MatrixRoom, session: OutboundGroupSession, left_out: set[str]) -> bool:
        """Whether a member has a device without the session's key, or may have one by now."""
        given = session.users_shared_with | session.users_ignored
        return bool(self._outdated(room) - left_out) or any(
            pair not in given for pair in self._active_devices(room.users)
        )

    def _outdated(self, room: MatrixRoom) -> set[str]:
        return self.users_for_key_query & set(room.users)

    def _invalidate_live_session(self, room_id: str) -> None:
        session = self.machine.outbound_group_sessions.get(room_id)
        if room_id in self.sharing_session:
            self._overtaken.add(room_id)
        # nio keeps a session that is not shared yet, although some may have its key: a request without an answer.
        if session is not None:
            del self.machine.outbound_group_sessions[room_id]
        self.production_store.storage.touch()

    def _invalidate_session_for_member_event(self, room_id: str) -> None:
        # The first sync makes every member new; a session of an earlier process is judged by the members instead.
        if self.olm is not None:
            self._invalidate_live_session(room_id)

    def _handle_joined_members(self, response: JoinedMembersResponse) -> None:
        room = self.rooms.get(response.room_id)
        before = set(room.users) if room else set()
        super()._handle_joined_members(response)
        # The member's own event no longer changes the list when it comes, so nio would keep the session.
        if room and set(room.users) != before:
            self._invalidate_session_for_member_event(response.room_id)

    def _handle_olm_response(self, response: Any) -> None:
        # nio credits whatever session the room has when the answer comes; `_conclude` the one that was shared.
        if not isinstance(response, ShareGroupSessionResponse):
            super()._handle_olm_response(response)


def _refused(answer: ErrorResponse, room: MatrixRoom) -> ShareGroupSessionError:
    return ShareGroupSessionError(answer.message, answer.status_code, room_id=room.room_id)
