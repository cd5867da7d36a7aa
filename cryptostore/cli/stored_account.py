"""What a database holds of one account, without a secret."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Self

from cryptostore.errors import UnreadableRecord
from cryptostore.records import (
    CrossSigningKeys,
    Device,
    DeviceTrust,
    EncryptedRoom,
    InboundGroupSession,
    MissedEvents,
    OlmSession,
    OutboundGroupSession,
    OutgoingKeyRequest,
    Record,
    Secret,
    SyncToken,
    TimelineGap,
    TrackedUser,
    UnreachedDevice,
    WithheldKey,
)
from cryptostore.store.crypto_store import CryptoStore
from cryptostore.store.keys import encode_key
from cryptostore.store.verifying import UnreadableRow

from .stored_identity import StoredIdentity


@dataclass
class StoredRoom:
    """What is stored of a room: how many Megolm sessions read it, and the one that sends into it."""

    is_encrypted: bool = False
    sessions: int = 0
    #: How many messages were sent with the present outbound session; None where there is none.
    sent: int | None = None
    has_gap: bool = False
    missed: int = 0


@dataclass
class StoredUser:
    """The devices that are known of a user, by what the owner decided about them."""

    devices: int = 0
    deleted: int = 0
    trust: Counter[DeviceTrust] = field(default_factory=Counter)


@dataclass
class StoredAccount:
    """All of it, in memory that grows with rooms and users alone, unless devices are kept."""

    identity: StoredIdentity
    has_sync_token: bool
    rooms: dict[str, StoredRoom]
    users: dict[str, StoredUser]
    devices: list[Device]
    secrets: list[Secret]
    #: How many records there are of kinds that are only counted.
    counted: dict[str, int]
    #: What belongs to the identity, or the sync token, and cannot be read.
    unreadable: list[UnreadableRow]

    @classmethod
    def read(cls, store: CryptoStore, *, keep_devices: bool) -> Self:
        """What the store holds. Raises what look-ups raise, but for a damaged Olm account or sync token."""
        identity = StoredIdentity.read(store)
        has_sync_token, damage = _sync_token(store)
        users, devices = _devices(store, keep=keep_devices)
        return cls(
            identity=identity,
            has_sync_token=has_sync_token,
            rooms=_rooms(store),
            users=users,
            devices=devices,
            secrets=list(store.scan(Secret)),
            counted={kind.kind_name: sum(1 for _ in store.keys(kind)) for kind in _COUNTED},
            unreadable=[*identity.unreadable, *damage],
        )


#: Of these, how many there are is enough.
_COUNTED: Final[tuple[type[Record], ...]] = (
    CrossSigningKeys,
    OlmSession,
    TrackedUser,
    OutgoingKeyRequest,
    UnreachedDevice,
    WithheldKey,
)


def _sync_token(store: CryptoStore) -> tuple[bool, list[UnreadableRow]]:
    try:
        return bool(store.get(SyncToken, [()])), []
    except UnreadableRecord as error:
        return False, [UnreadableRow(encode_key(SyncToken, ()), str(error))]


def _rooms(store: CryptoStore) -> dict[str, StoredRoom]:
    rooms: dict[str, StoredRoom] = {}

    def room(room_id: object) -> StoredRoom:
        return rooms.setdefault(str(room_id), StoredRoom())

    for key in store.keys(EncryptedRoom):
        room(key[0]).is_encrypted = True
    # Keys alone: an account may have a million sessions.
    for key in store.keys(InboundGroupSession):
        room(key[0]).sessions += 1
    for session in store.scan(OutboundGroupSession):
        room(session.room_id).sent = session.message_count
    for key in store.keys(TimelineGap):
        room(key[0]).has_gap = True
    for key in store.keys(MissedEvents):
        room(key[0]).missed += 1
    return dict(sorted(rooms.items()))


def _devices(store: CryptoStore, *, keep: bool) -> tuple[dict[str, StoredUser], list[Device]]:
    users: dict[str, StoredUser] = {}
    kept: list[Device] = []
    for device in store.scan(Device):
        user = users.setdefault(device.user_id, StoredUser())
        user.devices += 1
        user.deleted += device.deleted
        user.trust[device.trust] += 1
        if keep:
            kept.append(device)
    return users, kept
