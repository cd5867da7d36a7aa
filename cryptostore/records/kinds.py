"""What a crypto store keeps: one frozen dataclass for each kind of record.

A record belongs to one account, which the store knows and the record does not name. Each kind declares its number, its
key and its fields once, here; keys, values and test strategies derive from that. A new kind is one class with
`@record_kind`: it needs no migration, and no release of any backend.
"""

from __future__ import annotations

from typing import Final

from .fields import (
    NO_SCALARS,
    Bytes,
    Count,
    DeviceTrust,
    Flag,
    Identifier,
    Names,
    Pairs,
    PublicKey,
    Scalars,
    Text,
    Time,
    Trust,
)
from .record import Record, Unreadable, record_kind

#: In days: `ReplayPage.used_on` may be earlier than the last use by less than this.
USE_KEPT_TO: Final = 7


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
    """A pairwise Olm session with the device that owns the Curve25519 key `sender_key`.

    `receive_only` says that a newer state of it was lost, or may have been: it decrypts, and encrypts nothing more.
    """

    kind_number = 6
    format_number = 2
    added_fields = ("receive_only",)
    kind_name = "olm_session"
    key_fields = ("sender_key", "session_id")

    sender_key: PublicKey
    session_id: PublicKey
    pickle: Bytes
    created_at: Time
    last_used_at: Time
    receive_only: Flag = False


@record_kind
class FallbackKey(Record):
    """The newest fallback key of an algorithm: what the homeserver hands out when the one-time keys are used up.

    Its private half is in the Olm account that is written with it. It is offered, with this signature, until the
    homeserver has confirmed it.
    """

    kind_number = 20
    kind_name = "fallback_key"
    key_fields = ("algorithm",)

    algorithm: Identifier
    key_id: Identifier
    public_key: PublicKey
    signature: Text
    made_at: Time
    confirmed: Flag = False


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
    signature; matrix-nio does not. `from_backup` says that it came from a backup on the server, which anyone can write
    to who has the backup's public key.
    """

    kind_number = 8
    format_number = 2
    added_fields = ("from_backup",)
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
    from_backup: Flag = False


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
    key_fields = ("session_id", "sender_key", "user_id")

    room_id: Identifier
    session_id: PublicKey
    sender_key: PublicKey
    user_id: Identifier
    code: Text
    reason: Text
    received_at: Time


@record_kind
class TimelineGap(Record):
    """What a homeserver left out of a room's timeline: from `since` until `until`, and then until `latest`.

    `cursor` is where the page in hand begins; `passed` has 12 bytes, a hash of its id, for each of its events that was
    handed on or skipped for good; those of earlier pages are in `GapPart` records, numbered from 0 below `parts`.
    `newest` and `newest_until` are hashes, too, of events known to be there: before `latest`, and before `until`.
    `membership` is the account's own at the place reached: `join`, `other` or `unknown`. `filter` is JSON. Events older
    than `oldest`, in milliseconds of the epoch, are skipped until one is not; `skipped` have been.
    """

    kind_number = 21
    kind_name = "timeline_gap"
    key_fields = ("room_id",)
    when_unreadable = Unreadable.REFUSE

    room_id: Identifier
    since: Text
    until: Text
    latest: Text
    cursor: Text
    newest_until: Bytes = b""
    newest: Bytes = b""
    passed: Bytes = b""
    parts: Count = 0
    page_size: Count = 0
    membership: Text = "unknown"
    filter: Text = ""
    oldest: Count = 0
    skipped: Count = 0


@record_kind
class GapPart(Record):
    """The events of one page of a gap that was walked whole: 12 bytes, a hash of its id, for each."""

    kind_number = 22
    kind_name = "gap_part"
    key_fields = ("room_id", "part")

    room_id: Identifier
    part: Count
    passed: Bytes


@record_kind
class MissedEvents(Record):
    """Events of a room that reached no callback and will not come any more, with the cause; kept until it was told.

    They lie after the sync token `since`, and not after `until`. At least `count` are missing; 0 if that is not known.
    """

    kind_number = 23
    kind_name = "missed_events"
    key_fields = ("room_id", "number")
    when_unreadable = Unreadable.REFUSE

    room_id: Identifier
    number: Count
    cause: Text
    since: Text
    until: Text
    count: Count
    noticed_at: Time


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
    the event's id and timestamp. `used_on` is the day, counted from 1970 (UTC), on which a message on the page was read
    last, kept to `USE_KEPT_TO`; 0 if it is not known. Pages go with their session: see `CryptoStore.session_deletion`.
    """

    kind_number = 10
    format_number = 2
    added_fields = ("used_on",)
    kind_name = "replay_page"
    key_fields = ("session_id", "sender_key", "page")
    when_unreadable = Unreadable.REFUSE

    session_id: PublicKey
    sender_key: PublicKey
    page: Count
    used: Bytes
    events: Bytes
    used_on: Count = 0


@record_kind
class SyncToken(Record):
    """How far the account has read; written in the batch of the keys that it covers."""

    kind_number = 2
    kind_name = "sync_token"
    key_fields = ()
    when_unreadable = Unreadable.ERROR

    token: Text


@record_kind
class RestoredAccount(Record):
    """A backup of the account was put back: other devices have seen what is not stored any more.

    It is there until all is done. `is_disarmed` says that nothing that is stored encrypts any more, `keys_replaced`
    that the homeserver hands out no key that was lost. Devices whose Olm sessions are up to `told_to`, in key order,
    know that there is a new one. See `cryptostore restored`.
    """

    kind_number = 31
    kind_name = "restored_account"
    key_fields = ()
    when_unreadable = Unreadable.ERROR

    restored_at: Time
    is_disarmed: Flag = False
    keys_replaced: Flag = False
    told_to: Names = ()


@record_kind
class Value(Record):
    """Any other bytes by namespace and name: room for what comes later."""

    kind_number = 12
    kind_name = "value"
    key_fields = ("namespace", "name")

    namespace: Identifier
    name: Identifier
    value: Bytes
