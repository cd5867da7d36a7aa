"""The parts of a client that deal with trust or go on beside its syncs, and what they are told of its life."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from nio import MatrixRoom, SyncResponse

from cryptostore.nio.client.anchoring import Anchoring
from cryptostore.nio.client.homeserver import Homeserver
from cryptostore.nio.client.pruner import Pruner
from cryptostore.nio.client.restoring import Restoring
from cryptostore.nio.client.session import Session
from cryptostore.nio.configuration import ClientSettings

from .key_backup import KeyBackups
from .late_messages import HandOnLate
from .own_identity import OwnIdentity
from .refused_messages import RefusedMessages
from .requests import Requests
from .secret_sharing import SecretSharing
from .secret_storage import RecoveryKey
from .verifications import Verifications

if TYPE_CHECKING:
    from cryptostore.nio.client.client import ProductionMatrixClient


class Trust:
    """These parts of a client. The lists have who is told of what, in this order.

    They are told of an event before the program's own callbacks are, and what they raise ends the sync as it does for
    those: the events come again.
    """

    def __init__(
        self, client: ProductionMatrixClient, session: Session, homeserver: Homeserver, settings: ClientSettings
    ) -> None:
        self._client = client
        self._session = session
        given = RecoveryKey(settings.recovery_key) if settings.recovery_key else None
        self.requests: Final = Requests(client)
        self.own: Final = OwnIdentity(client, session, self.requests, homeserver, given, is_on=settings.cross_signing)
        self.key_backup: Final = KeyBackups(client, session, self.requests)
        self._refused = RefusedMessages(session, self.requests, homeserver, client.keys_query)
        self.sharing: Final = SecretSharing(client, session, self.requests, self.own)
        self.verifications: Final = Verifications(client, session, self.requests, self.sharing)
        self.pruner: Final = Pruner(client, session, self.requests.joined_rooms, settings.prune)
        self.anchoring: Final = Anchoring(session, self.requests, homeserver)
        self.restoring: Final = Restoring(client, session, self.requests, homeserver)
        self.on_open: Final = self._told_of_an_opening()
        self.on_close: Final = self._told_of_the_end()
        self.on_to_device: Final = self._told_of_to_device()
        self.on_room_event: Final = self._told_of_rooms()
        self.after_sync: Final = self._told_of_syncs()

    def _told_of_an_opening(self) -> list[Callable[[], None]]:
        """An account was opened, on the event loop or not."""
        return [
            self.own.opened,
            self.key_backup.opened,
            self._refused.opened,
            self.sharing.opened,
            self.verifications.opened,
            self.pruner.opened,
            self.anchoring.opened,
        ]

    def _told_of_the_end(self) -> list[Callable[[], Awaitable[None]]]:
        """The client is about to be closed."""
        return [
            self.pruner.closing,
            self.restoring.closing,
            self.key_backup.closing,
            self.sharing.closing,
            self.verifications.closing,
            self.anchoring.closing,
        ]

    def _told_of_to_device(self) -> list[Callable[[Any], Awaitable[None]]]:
        """A to-device event came, decrypted if that could be done."""
        return [
            self.sharing.to_device,
            self.verifications.to_device,
        ]

    def _told_of_rooms(self) -> list[Callable[[Any, MatrixRoom], Awaitable[None]]]:
        """An event of a room came, likewise."""
        return [
            self.key_backup.late_events.note,
            self._refused.note,
            self.verifications.room_event,
        ]

    def _told_of_syncs(self) -> list[Callable[[SyncResponse], Awaitable[None]]]:
        """A sync was handled, and is durable."""
        return [
            self.own.after_sync,
            self.key_backup.after_sync,
            self._refused.after_sync,
            self.sharing.synced,
            self.verifications.synced,
            self.pruner.after_sync,
            self.restoring.after_sync,
            self.anchoring.after_sync,
        ]

    def hand_on_with(self, hand_on: HandOnLate) -> None:
        """What decrypts messages once more, and hands those that can be read then to the callbacks."""
        self.key_backup.late_events.hand_on = self._refused.hand_on = hand_on

    def opened(self) -> None:
        """An account was opened."""
        self._session.store.identities.on_change = self._end_sessions_with
        for listener in self.on_open:
            listener()

    async def logged_in(
        self, password: str | None, given: RecoveryKey | None, file: str | os.PathLike[str] | None
    ) -> None:
        """The client has a login: see `login_or_restore` of the client."""
        await self.restoring.replace_keys()
        await self.anchoring.settle()
        await self.own.settle(password, given, file)

    async def closing(self) -> None:
        """The client is about to be closed. All are told, also where one raises."""
        errors = []
        for listener in self.on_close:
            try:
                await listener()
            except Exception as error:  # noqa: BLE001  # raised below, when the others were told
                errors.append(error)
        if errors:
            raise errors[0]

    def before_to_device(self, call: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
        """What calls `call` with a to-device event, after the parts were told of it."""

        async def told(event: Any) -> None:
            for listener in self.on_to_device:
                await listener(event)
            await call(event)

        return told

    def before_room_event(
        self, call: Callable[[Any, MatrixRoom], Awaitable[None]]
    ) -> Callable[[Any, MatrixRoom], Awaitable[None]]:
        """What calls `call` with an event of a room, after the parts were told of it."""

        async def told(event: Any, room: MatrixRoom) -> None:
            for listener in self.on_room_event:
                await listener(event, room)
            await call(event, room)

        return told

    async def synced(self, response: SyncResponse) -> None:
        """A sync was handled."""
        for listener in self.after_sync:
            await listener(response)

    def _end_sessions_with(self, user_id: str) -> None:
        """The keys of a user's rooms may be for other devices now: what is sent next has new ones."""
        for room_id in self._session.machine.outbound.rooms:
            room = self._client.rooms.get(room_id)
            if room is not None and user_id in room.users:
                self._client.invalidate_outbound_session(room_id)
