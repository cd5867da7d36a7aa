"""What a crypto store keeps: one frozen dataclass for each kind of record.

A record belongs to one account, which the store knows and the record does not name. Pickles are opaque here: the client
library has encrypted them with the pickle key. Each kind names its key fields once, in `key_fields`; statements, key
encodings and test strategies derive from that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

from .errors import InvalidRecord
from .fields import (
    NO_SCALARS,
    Bytes,
    Count,
    DeviceTrust,
    Field,
    Flag,
    Identifier,
    Integer,
    Names,
    Pairs,
    Scalars,
    Text,
    Time,
    Trust,
    check,
    declared_fields,
)

#: The values of a record's key fields, in their declared order; `()` for kinds of which an account has one record.
Key = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Account:
    """Whose keys these are: one device of one user."""

    user_id: Identifier
    device_id: Identifier

    def __post_init__(self) -> None:
        _check_fields(self, "account")

    def __str__(self) -> str:
        return f"{self.user_id} {self.device_id}"


@dataclass(frozen=True, slots=True, repr=False)
class Record:
    """Base of all kinds. Raises InvalidRecord, naming kind and field, for a value that no backend may accept."""

    #: The kind's stable name, also the stem of its tables.
    kind_name: ClassVar[str]
    #: The fields that tell one record of this kind from another within an account.
    key_fields: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        _check_fields(self, self.kind_name)

    @property
    def key(self) -> Key:
        """The values of the key fields."""
        return tuple([getattr(self, name) for name in self.key_fields])

    def __repr__(self) -> str:
        # Only the key: pickles and tokens have no business in a log line.
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.key_fields)
        return f"{type(self).__name__}({shown})"


@dataclass(frozen=True, slots=True, repr=False)
class OlmAccount(Record):
    """The device's identity: its Olm account. `shared` says that its device keys were uploaded.

    `key_check` is what a client library recognises the pickle key by, so that a wrong one is not taken for damage.
    """

    kind_name = "olm_account"
    key_fields = ()

    pickle: Bytes
    shared: Flag = False
    key_check: Bytes = b""


@dataclass(frozen=True, slots=True, repr=False)
class OlmSession(Record):
    """A pairwise Olm session with the device that owns the Curve25519 key `sender_key`."""

    kind_name = "olm_session"
    key_fields = ("sender_key", "session_id")

    sender_key: Identifier
    session_id: Identifier
    pickle: Bytes
    created_at: Time
    last_used_at: Time


@dataclass(frozen=True, slots=True, repr=False)
class OlmMessage(Record):
    """A to-device ciphertext that was handled already; dropped when the sync token advances past it."""

    kind_name = "olm_message"
    key_fields = ("sender_key", "hash")

    sender_key: Identifier
    hash: Identifier


@dataclass(frozen=True, slots=True, repr=False)
class InboundGroupSession(Record):
    """A Megolm session that decrypts a room's messages.

    `sender_key` is part of the key because anyone can claim a session id. `forwarding_chain` is in forwarding order,
    empty for a session that came from its creator directly.
    """

    kind_name = "inbound_group_session"
    key_fields = ("room_id", "session_id", "sender_key")

    room_id: Identifier
    session_id: Identifier
    sender_key: Identifier
    pickle: Bytes
    signing_key: Text
    forwarding_chain: Names
    first_known_index: Count
    received_at: Time


@dataclass(frozen=True, slots=True, repr=False)
class OutboundGroupSession(Record):
    """The Megolm session that encrypts what this device sends into a room, and who has its key."""

    kind_name = "outbound_group_session"
    key_fields = ("room_id",)

    room_id: Identifier
    pickle: Bytes
    created_at: Time
    message_count: Count = 0
    shared: Flag = False
    shared_with: Pairs = frozenset()
    ignored: Pairs = frozenset()


@dataclass(frozen=True, slots=True, repr=False)
class Device(Record):
    """A device of any user, its public keys by algorithm, and the owner's decision about it."""

    kind_name = "device"
    key_fields = ("user_id", "device_id")

    user_id: Identifier
    device_id: Identifier
    keys: Scalars = NO_SCALARS
    display_name: Text = ""
    deleted: Flag = False
    trust: Trust = DeviceTrust.UNSET


@dataclass(frozen=True, slots=True, repr=False)
class TrackedUser(Record):
    """A user whose device list is followed. `generation` grows with each change seen, so that an old answer shows."""

    kind_name = "tracked_user"
    key_fields = ("user_id",)

    user_id: Identifier
    outdated: Flag = False
    generation: Count = 0


@dataclass(frozen=True, slots=True, repr=False)
class EncryptedRoom(Record):
    """A room that is encrypted, for ever. `settings` is what its m.room.encryption event said."""

    kind_name = "encrypted_room"
    key_fields = ("room_id",)

    room_id: Identifier
    settings: Scalars = NO_SCALARS


@dataclass(frozen=True, slots=True, repr=False)
class OutgoingKeyRequest(Record):
    """A room key that was asked for and has not come yet."""

    kind_name = "outgoing_key_request"
    key_fields = ("request_id",)

    request_id: Identifier
    session_id: Identifier
    room_id: Identifier
    algorithm: Identifier


@dataclass(frozen=True, slots=True, repr=False)
class MessageIndex(Record):
    """The event that a Megolm message index was seen in; another event with the same index is a replay.

    `timestamp` is the server's integer as it came (milliseconds, but a server may claim anything). Rows go with their
    session: see `CryptoStore.session_deletion`.
    """

    kind_name = "message_index"
    key_fields = ("session_id", "sender_key", "index")

    session_id: Identifier
    sender_key: Identifier
    index: Count
    event_id: Identifier
    timestamp: Integer


@dataclass(frozen=True, slots=True, repr=False)
class SyncToken(Record):
    """How far the account has read; written in the batch of the keys that it covers."""

    kind_name = "sync_token"
    key_fields = ()

    token: Text


@dataclass(frozen=True, slots=True, repr=False)
class Value(Record):
    """Any other bytes by namespace and name: room for what comes later."""

    kind_name = "value"
    key_fields = ("namespace", "name")

    namespace: Identifier
    name: Identifier
    value: Bytes


#: Every kind that a store must be able to keep.
KINDS: Final[tuple[type[Record], ...]] = (
    OlmAccount,
    OlmSession,
    OlmMessage,
    InboundGroupSession,
    OutboundGroupSession,
    Device,
    TrackedUser,
    EncryptedRoom,
    OutgoingKeyRequest,
    MessageIndex,
    SyncToken,
    Value,
)


# Worked out once for each class: every record that is made asks for them.
_fields: Final[dict[type, tuple[Field, ...]]] = {}
_key_fields: Final[dict[type, tuple[Field, ...]]] = {}


def fields_of(kind: type[Record | Account]) -> tuple[Field, ...]:
    """The kind's fields with their types, in constructor order."""
    if kind not in _fields:
        _fields[kind] = declared_fields(kind)
    return _fields[kind]


def key_fields_of(kind: type[Record]) -> tuple[Field, ...]:
    """The kind's key fields with their types, in key order."""
    if kind not in _key_fields:
        by_name = {field.name: field for field in fields_of(kind)}
        _key_fields[kind] = tuple(by_name[name] for name in kind.key_fields)
    return _key_fields[kind]


def check_key(kind: type[Record], key: Any) -> Key:
    """`key` if it is a whole key of `kind`. Raises InvalidRecord."""
    return _check_key_values(kind, key, whole=True)


def check_prefix(kind: type[Record], prefix: Any) -> Key:
    """`prefix` if it is the beginning of a key of `kind`; the whole key and `()` count. Raises InvalidRecord."""
    return _check_key_values(kind, prefix, whole=False)


def sort_key(key: Key) -> tuple[bytes | int, ...]:
    """What to sort keys by: texts as their UTF-8 bytes, integers as numbers."""
    return tuple([value.encode() if isinstance(value, str) else value for value in key])


def _check_fields(instance: Record | Account, kind_name: str) -> None:
    for name, field_type in fields_of(type(instance)):
        given = getattr(instance, name)
        try:
            kept = check(field_type, given)
        except ValueError as error:
            raise InvalidRecord(kind_name, name, str(error)) from None
        if kept is not given:
            object.__setattr__(instance, name, kept)


def _check_key_values(kind: type[Record], values: Any, *, whole: bool) -> Key:
    expected = key_fields_of(kind)
    if not isinstance(values, tuple):
        raise InvalidRecord(kind.kind_name, "key", f"must be a tuple, not {type(values).__name__}")
    if len(values) > len(expected) or (whole and len(values) < len(expected)):
        names = ", ".join(kind.key_fields) or "no fields"
        raise InvalidRecord(kind.kind_name, "key", f"has {len(values)} values; the kind's key is ({names})")
    for (name, field_type), value in zip(expected, values, strict=False):
        try:
            check(field_type, value)
        except ValueError as error:
            raise InvalidRecord(kind.kind_name, name, str(error)) from None
    return values
