"""What nio will look up while it handles a response, fetched in a thread beforehand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import vodozemac
from nio import (
    KeysClaimResponse,
    KeysQueryResponse,
    Response,
    RoomContextResponse,
    RoomGetEventResponse,
    RoomKeyRequest,
    RoomMessagesResponse,
    SyncResponse,
)
from nio.crypto import InboundGroupSession
from nio.events import MegolmEvent, OlmEvent, ToDeviceEvent

from cryptostore.nio.devices import UserDevices
from cryptostore.nio.group_sessions import GroupSessionKey
from cryptostore.nio.sessions import SenderSessions

from .machine import ProductionOlm
from .replay import Page, PageKey, page_of
from .session import Session
from .store import ProductionStore
from .threads import in_thread
from .withheld import session_of, withheld_by


@dataclass
class Wanted:
    """Keys to look up."""

    #: Users whose devices are looked at.
    users: set[str] = field(default_factory=set)
    #: Users with whose devices Olm sessions are needed.
    partners: set[str] = field(default_factory=set)
    #: Curve25519 keys whose Olm sessions are needed.
    sender_keys: set[str] = field(default_factory=set)
    group_sessions: set[GroupSessionKey] = field(default_factory=set)
    pages: set[PageKey] = field(default_factory=set)
    #: Who sent a message, by its session: without that session nio looks at the Olm sessions with the sender.
    senders: dict[GroupSessionKey, str] = field(default_factory=dict)

    def add_to_device(self, event: Any) -> None:
        """What handling a to-device event looks up."""
        if isinstance(event, ToDeviceEvent):
            self.users.add(event.sender)
        if isinstance(event, OlmEvent):
            self.sender_keys.add(event.sender_key)
        if (said := withheld_by(event)) is not None:
            self.group_sessions.add(session_of(said))

    def add_key_request(self, request: Any) -> None:
        """What answering a request for a room key looks up. A cancellation names no session."""
        if isinstance(request, RoomKeyRequest):
            self.partners.add(request.sender)
            self.group_sessions.add((request.room_id, request.session_id, request.sender_key))

    def add_message(self, event: Any, room_id: str) -> None:
        """What decrypting a message looks up."""
        if not isinstance(event, MegolmEvent) or not event.sender_key or not event.session_id:
            return
        key = (event.room_id or room_id, event.session_id, event.sender_key)
        self.users.add(event.sender)
        self.group_sessions.add(key)
        self.senders[key] = event.sender
        try:
            index = vodozemac.MegolmMessage.from_base64(event.ciphertext).message_index()
        except ValueError:
            return
        self.pages.add(page_of(event.session_id, event.sender_key, index))


def wanted_by(response: Response, machine: ProductionOlm) -> Wanted:
    """What nio will look up while it handles `response`."""
    wanted = Wanted()
    match response:
        case SyncResponse():
            _add_sync(wanted, response, machine)
        case RoomMessagesResponse():
            _add_messages(wanted, response.chunk, response.room_id)
        case RoomContextResponse():
            events = [response.event, *response.events_before, *response.events_after]
            _add_messages(wanted, events, response.room_id)
        case RoomGetEventResponse():
            wanted.add_message(response.event, "")
        case KeysQueryResponse():
            wanted.users.update(response.device_keys)
        case KeysClaimResponse():
            wanted.partners.update(response.one_time_keys)
    return wanted


def _add_sync(wanted: Wanted, response: SyncResponse, machine: ProductionOlm) -> None:
    for event in response.to_device_events:
        wanted.add_to_device(event)
        wanted.add_key_request(event)
    for request in machine.received_key_requests.values():
        wanted.add_key_request(request)
    add_timelines(wanted, response)


def add_timelines(wanted: Wanted, response: SyncResponse) -> None:
    """What decrypting a sync's messages looks up."""
    for room_id, room in response.rooms.join.items():
        _add_messages(wanted, room.timeline.events, room_id)


def _add_messages(wanted: Wanted, events: Iterable[Any], room_id: str) -> None:
    for event in events:
        wanted.add_message(event, room_id)


class Fetched(NamedTuple):
    """What was wanted. It stays in memory as long as this does, also if the caches hold less."""

    group_sessions: Mapping[GroupSessionKey, InboundGroupSession]
    devices: Mapping[str, UserDevices]
    sessions: Mapping[str, SenderSessions]
    pages: Mapping[PageKey, Page]
    proofs: Mapping[str, object]


def fetch(store: ProductionStore, wanted: Wanted) -> Fetched:
    """Bring what is wanted into memory, from a thread."""
    group_sessions = store.load_inbound_group_sessions().prefetch(wanted.group_sessions)
    partners = wanted.partners | {sender for key, sender in wanted.senders.items() if key not in group_sessions}
    devices = store.load_device_keys().prefetch(wanted.users | partners)
    curve_keys = {
        key for user in partners for device in list(devices[user].values()) if (key := device.keys.get("curve25519"))
    }
    sessions = store.load_sessions().prefetch(wanted.sender_keys | curve_keys)
    proofs = store.sender_devices.prefetch(_unproved_sender_keys(wanted, devices, store.identities.is_signed_by_owner))
    return Fetched(group_sessions, devices, sessions, store.replays.prefetch(wanted.pages), proofs)


def _unproved_sender_keys(
    wanted: Wanted, devices: Mapping[str, UserDevices], is_signed: Callable[[str, str, str], bool]
) -> set[str]:
    """Those of the keys with which messages were sent that are not of a device which is known to be signed."""
    return {
        sender_key
        for (_, _, sender_key), sender in wanted.senders.items()
        if not any(
            device.curve25519 == sender_key and is_signed(sender, device.id, device.ed25519)
            for device in list(devices[sender].values())
        )
    }


class Prefetching:
    """Keeps the event loop from waiting for the database."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @asynccontextmanager
    async def of(self, wanted: Wanted) -> AsyncIterator[None]:
        """Have what is wanted in memory inside the block. Raises BackendUnavailable."""
        if wanted != Wanted():
            # Held by this name until the block ends.
            _fetched = await self._fetch(wanted)
        yield

    async def keep_for_requests(self) -> None:
        """What a request needs stays in memory until the owner decides: `continue_key_share` cannot wait."""
        machine = self._session.machine
        waiting = machine.key_request_from_untrusted.values()
        if not waiting:
            machine.kept_for_requests = None
            return
        wanted = Wanted()
        for request in waiting:
            wanted.add_key_request(request)
        machine.kept_for_requests = await self._fetch(wanted)

    async def _fetch(self, wanted: Wanted) -> Fetched:
        return await in_thread(self._session.threads, fetch, self._session.store, wanted)
