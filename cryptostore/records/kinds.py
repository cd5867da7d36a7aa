"""What a crypto store keeps: one frozen dataclass for each kind of record.

A record belongs to one account, which the store knows and the record does not name. Each kind declares its number, its
key and its fields once, here; keys, values and test strategies derive from that. A new kind is one class with
`@record_kind`: it needs no migration, and no release of any backend.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Final, TypeVar, dataclass_transform

from cryptostore.errors import InvalidRecord

from .fields import (
    CHECKS,
    NO_SCALARS,
    Bytes,
    Count,
    DeviceTrust,
    Field,
    Flag,
    Identifier,
    Names,
    Pairs,
    PublicKey,
    Scalars,
    Text,
    Time,
    Trust,
    declared_fields,
    values_getter,
)

#: The values of a record's key fields, in their declared order; `()` for kinds of which an account has one record.
Key = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Account:
    """One device of one user, which owns the keys."""

    user_id: Identifier
    device_id: Identifier

    def __post_init__(self) -> None:
        _check_fields(self, "account")

    def __str__(self) -> str:
        return f"{self.user_id} {self.device_id}"


class Unreadable(enum.Enum):
    """What a look-up does about a stored row that cannot be read. The row is reported and kept in every case."""

    #: Asking raises UnreadableRecord: read as absent, the row would be replaced.
    ERROR = "error"
    #: The answer names the row, and the caller refuses what its absence would permit.
    REFUSE = "refuse"
    #: The row is left out of the answer, which names it.
    SKIP = "skip"


@dataclass(frozen=True, slots=True, repr=False)
class Record:
    """Base of all kinds. Raises InvalidRecord, naming kind and field, for a value that no store may accept."""

    #: The first byte of the kind's keys: 1 to 254, never used again for another kind.
    kind_number: ClassVar[int]
    #: The kind's stable name, for people.
    kind_name: ClassVar[str]
    #: Grows with each field that is added, so that an older program does not drop the field in silence.
    format_number: ClassVar[int] = 1
    #: What a row that cannot be read means.
    when_unreadable: ClassVar[Unreadable] = Unreadable.SKIP
    #: The fields that tell one record of this kind from another within an account.
    key_fields: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        _check_fields(self, self.kind_name)

    @property
    def key(self) -> Key:
        """The values of the key fields."""
        return _key_getter_of(type(self))(self)

    def __repr__(self) -> str:
        # Only the key: pickles and tokens have no business in a log line.
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.key_fields)
        return f"{type(self).__name__}({shown})"


_RING_NUMBERS: Final = (0, 255)
_kinds: Final[dict[int, type[Record]]] = {}

#: Every kind that this program knows, by its number.
KINDS_BY_NUMBER: Final[Mapping[int, type[Record]]] = MappingProxyType(_kinds)

R = TypeVar("R", bound=Record)


@dataclass_transform(frozen_default=True)
def record_kind(cls: type[R]) -> type[R]:
    """Declare a kind of record. Raises ValueError for a number that is taken."""
    kind: type[R] = dataclass(frozen=True, slots=True, repr=False)(cls)
    number = kind.kind_number
    if number in _kinds or number in _RING_NUMBERS or not 0 < number < 255:
        raise ValueError(f"the kind number {number} of {kind.__name__} is taken; choose another one from 1 to 254")
    _kinds[number] = kind
    return kind


@record_kind
class OlmAccount(Record):
    """The device's identity: its Olm account. `shared` says that its device keys were uploaded."""

    kind_number = 1
    kind_name = "olm_account"
    key_fields = ()
    when_unreadable = Unreadable.ERROR

    pickle: Bytes
    shared: Flag = False


@record_kind
class OlmSession(Record):
    """A pairwise Olm session with the device that owns the Curve25519 key `sender_key`."""

    kind_number = 6
    kind_name = "olm_session"
    key_fields = ("sender_key", "session_id")

    sender_key: PublicKey
    session_id: PublicKey
    pickle: Bytes
    created_at: Time
    last_used_at: Time


@record_kind
class OlmMessage(Record):
    """A to-device ciphertext that was handled already; dropped when the sync token advances past it."""

    kind_number = 7
    kind_name = "olm_message"
    key_fields = ("sender_key", "hash")
    when_unreadable = Unreadable.REFUSE

    sender_key: PublicKey
    hash: Identifier


@record_kind
class InboundGroupSession(Record):
    """A Megolm session that decrypts a room's messages.

    `session_key` is its export at `first_known_index`, decoded: all that a session is. `sender_key` is part of the key
    because anyone can claim a session id. `forwarding_chain` is in forwarding order, empty for a session that came from
    its creator directly. `signing_key_verified` is for libraries that know whether the session key came with a valid
    signature; matrix-nio does not.
    """

    kind_number = 8
    kind_name = "inbound_group_session"
    key_fields = ("room_id", "session_id", "sender_key")

    room_id: Identifier
    session_id: PublicKey
    sender_key: PublicKey
    session_key: Bytes
    signing_key: PublicKey
    forwarding_chain: Names
    first_known_index: Count
    received_at: Time
    signing_key_verified: Flag = False


@record_kind
class OutboundGroupSession(Record):
    """The Megolm session that encrypts what this device sends into a room.

    Who has its key is in its `SharedPart` records, numbered from 0 below `parts`.
    """

    kind_number = 9
    kind_name = "outbound_group_session"
    key_fields = ("room_id",)

    room_id: Identifier
    pickle: Bytes
    created_at: Time
    message_count: Count = 0
    shared: Flag = False
    parts: Count = 0


@record_kind
class SharedPart(Record):
    """Some of the devices that were given an outbound session's key, and of those that were left out for good.

    A part is written once and never changed, so that a message costs the same however many have its key. Parts are
    deleted with their session.
    """

    kind_number = 13
    kind_name = "shared_part"
    key_fields = ("room_id", "session_id", "part")

    room_id: Identifier
    session_id: PublicKey
    part: Count
    shared_with: Pairs = frozenset()
    ignored: Pairs = frozenset()


@record_kind
class Device(Record):
    """A device of any user, its public keys by algorithm, and the owner's decision about it."""

    kind_number = 3
    kind_name = "device"
    key_fields = ("user_id", "device_id")
    when_unreadable = Unreadable.REFUSE

    user_id: Identifier
    device_id: Identifier
    keys: Scalars = NO_SCALARS
    display_name: Text = ""
    deleted: Flag = False
    trust: Trust = DeviceTrust.UNSET


@record_kind
class UnreachedDevice(Record):
    """A device for which the homeserver had no one-time key, so that no Olm session could begin: when to ask again.

    `attempts` have failed since the device was last reached. `was_told` says that the device was told of it.
    """

    kind_number = 17
    kind_name = "unreached_device"
    key_fields = ("user_id", "device_id")

    user_id: Identifier
    device_id: Identifier
    attempts: Count
    next_attempt_at: Time
    was_told: Flag = False


@record_kind
class WithheldKey(Record):
    """What a user's device said of a room key that it does not send: a code, of the specification or not, and a reason.

    Room and session are `*` where it can send none at all.
    """

    kind_number = 18
    kind_name = "withheld_key"
    key_fields = ("room_id", "session_id", "sender_key", "user_id")

    room_id: Identifier
    session_id: PublicKey
    sender_key: PublicKey
    user_id: Identifier
    code: Text
    reason: Text
    received_at: Time


@record_kind
class TrackedUser(Record):
    """A user whose device list is followed. `generation` grows with each change seen, so that an old answer shows."""

    kind_number = 4
    kind_name = "tracked_user"
    key_fields = ("user_id",)

    user_id: Identifier
    outdated: Flag = False
    generation: Count = 0


@record_kind
class EncryptedRoom(Record):
    """An encrypted room; it stays encrypted. `settings` is what its m.room.encryption event said."""

    kind_number = 5
    kind_name = "encrypted_room"
    key_fields = ("room_id",)
    when_unreadable = Unreadable.REFUSE

    room_id: Identifier
    settings: Scalars = NO_SCALARS


@record_kind
class OutgoingKeyRequest(Record):
    """A room key that was asked for and has not come yet."""

    kind_number = 11
    kind_name = "outgoing_key_request"
    key_fields = ("request_id",)

    request_id: Identifier
    session_id: PublicKey
    room_id: Identifier
    algorithm: Identifier


@record_kind
class ReplayPage(Record):
    """Which of 64 message indices of a Megolm session were used, from `page` * 64 on, and by which events.

    Another event with a used index is a replay. `used` has a bit for each index, big-endian, the lowest for the first.
    `events` has 12 bytes for each used index, in order: the beginning of HMAC-SHA256 with the account's replay key of
    the event's id and timestamp. Pages go with their session: see `CryptoStore.session_deletion`.
    """

    kind_number = 10
    kind_name = "replay_page"
    key_fields = ("session_id", "sender_key", "page")
    when_unreadable = Unreadable.REFUSE

    session_id: PublicKey
    sender_key: PublicKey
    page: Count
    used: Bytes
    events: Bytes


@record_kind
class SyncToken(Record):
    """How far the account has read; written in the batch of the keys that it covers."""

    kind_number = 2
    kind_name = "sync_token"
    key_fields = ()
    when_unreadable = Unreadable.ERROR

    token: Text


@record_kind
class Value(Record):
    """Any other bytes by namespace and name: room for what comes later."""

    kind_number = 12
    kind_name = "value"
    key_fields = ("namespace", "name")

    namespace: Identifier
    name: Identifier
    value: Bytes


#: Every kind that this project declares, in the order of their numbers.
KINDS: Final[tuple[type[Record], ...]] = tuple(_kinds[number] for number in sorted(_kinds))


# Worked out once for each class: every record that is made asks for them.
_fields: Final[dict[type, tuple[Field, ...]]] = {}
_key_fields: Final[dict[type, tuple[Field, ...]]] = {}
_checks: Final[dict[type, tuple[tuple[str, Callable[[Any], Any]], ...]]] = {}
_key_checks: Final[dict[type, tuple[tuple[str, Callable[[Any], Any]], ...]]] = {}
_key_getters: Final[dict[type, Callable[[Any], Key]]] = {}


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


def _checks_of(kind: type[Record | Account]) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    if kind not in _checks:
        _checks[kind] = tuple((name, CHECKS[field_type]) for name, field_type in fields_of(kind))
    return _checks[kind]


def _key_checks_of(kind: type[Record]) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    if kind not in _key_checks:
        _key_checks[kind] = tuple((name, CHECKS[field_type]) for name, field_type in key_fields_of(kind))
    return _key_checks[kind]


def _key_getter_of(kind: type[Record]) -> Callable[[Any], Key]:
    if kind not in _key_getters:
        _key_getters[kind] = values_getter(kind.key_fields)
    return _key_getters[kind]


def _check_fields(instance: Record | Account, kind_name: str) -> None:
    for name, check in _checks_of(type(instance)):
        given = getattr(instance, name)
        try:
            kept = check(given)
        except ValueError as error:
            raise InvalidRecord(kind_name, name, str(error)) from None
        if kept is not given:
            object.__setattr__(instance, name, kept)


def _check_key_values(kind: type[Record], values: Any, *, whole: bool) -> Key:
    expected = _key_checks_of(kind)
    if not isinstance(values, tuple):
        raise InvalidRecord(kind.kind_name, "key", f"must be a tuple, not {type(values).__name__}")
    if len(values) > len(expected) or (whole and len(values) < len(expected)):
        names = ", ".join(kind.key_fields) or "no fields"
        raise InvalidRecord(kind.kind_name, "key", f"has {len(values)} values; the kind's key is ({names})")
    for (name, check), value in zip(expected, values, strict=False):
        try:
            check(value)
        except ValueError as error:
            raise InvalidRecord(kind.kind_name, name, str(error)) from None
    return values
