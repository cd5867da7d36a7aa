"""The kinds of records that deal with trust: identities, secrets, verification and key backup."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from .fields import NO_SCALARS, Bytes, Flag, Identifier, Names, PublicKey, Scalars, Text, Time
from .record import Record, Unreadable, record_kind

#: The time of what did not happen yet.
NEVER: Final = datetime.fromtimestamp(0, UTC)


@record_kind
class CrossSigningKeys(Record):
    """A user's cross-signing identity, whose signatures were verified when the homeserver showed it.

    `pinned_master_key` is the first one seen, or the one that the owner decided for since; room keys of a `verified`
    user stop where the present `master_key` is another. `signed_devices` has the Ed25519 key of each device that the
    present self-signing key has signed, by device id, also of those that are gone. The self-signing key is empty where
    the homeserver shows none. The user-signing key is known of the account's own user alone. A signature by which the
    account has verified the user counts no more for the `withdrawn_master_key`: homeservers take none away.
    """

    kind_number = 24
    kind_name = "cross_signing_keys"
    key_fields = ("user_id",)
    when_unreadable = Unreadable.REFUSE

    user_id: Identifier
    master_key: PublicKey
    self_signing_key: Text
    pinned_master_key: PublicKey
    user_signing_key: Text = ""
    verified: Flag = False
    signed_devices: Scalars = NO_SCALARS
    withdrawn_master_key: Text = ""


@record_kind
class IdentityChange(Record):
    """A user's master key is not the pinned one any more; kept until it was told.

    `was_verified` says that the user's room keys stop until somebody decides.
    """

    kind_number = 30
    kind_name = "identity_change"
    key_fields = ("user_id",)
    when_unreadable = Unreadable.REFUSE

    user_id: Identifier
    pinned_master_key: PublicKey
    master_key: PublicKey
    was_verified: Flag
    noticed_at: Time


@record_kind
class Secret(Record):
    """A secret of the account's user, under its name in the specification, such as `m.cross_signing.master`.

    It is sealed twice: as every record, and with `CryptoStore.secrets`, so that whoever prints records prints none.
    `shown_at` is when a person saw it first, or `NEVER`: a recovery key is shown once.
    """

    kind_number = 25
    kind_name = "secret"
    key_fields = ("name",)
    when_unreadable = Unreadable.REFUSE

    name: Identifier
    sealed: Bytes
    made_at: Time
    shown_at: Time = NEVER

    @property
    def shown(self) -> bool:
        """Whether a person has seen it."""
        return self.shown_at != NEVER


@record_kind
class KeyBackup(Record):
    """The backup on the server that Megolm sessions go to, and how far the store was walked for it.

    `walked_to` is the key of the last session of the walk, empty before it begins. A session that comes after the walk
    has passed its key has a `SessionToBackUp`.
    """

    kind_number = 26
    kind_name = "key_backup"
    key_fields = ()

    version: Text
    public_key: PublicKey
    walked_to: Names = ()
    is_walked: Flag = False


@record_kind
class SessionToBackUp(Record):
    """A Megolm session that is not in the backup yet; written in the batch of the session, deleted when it is."""

    kind_number = 27
    kind_name = "session_to_back_up"
    key_fields = ("room_id", "session_id", "sender_key")

    room_id: Identifier
    session_id: PublicKey
    sender_key: PublicKey


@record_kind
class SenderDevice(Record):
    """What a device sent of itself with an Olm message, and signed: it proves a sender whose device is gone (MSC4147).

    `self_signing_key` is the one that has signed these keys; empty if none has.
    """

    kind_number = 28
    kind_name = "sender_device"
    key_fields = ("sender_key",)

    sender_key: PublicKey
    user_id: Identifier
    device_id: Identifier
    signing_key: PublicKey
    self_signing_key: Text = ""


@record_kind
class Verification(Record):
    """A verification under way with another device. It ends with the process, so the next one cancels it.

    `room_id` is empty for a verification by to-device messages.
    """

    kind_number = 29
    kind_name = "verification"
    key_fields = ("user_id", "transaction_id")

    user_id: Identifier
    transaction_id: Identifier
    device_id: Text
    room_id: Text
    started_at: Time
