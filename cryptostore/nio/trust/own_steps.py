"""What comes next on the way to a device that its owner has signed: decided from what is there, with no request.

Each start asks what the homeserver and the store have, does one step, and asks again. A start that was cut short is
completed by the next one in this way, whichever step was the last.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, NamedTuple


class Identity(enum.Enum):
    """Whose cross-signing identity the homeserver has for this account. One is ours if all three keys are."""

    UNSUPPORTED = "the homeserver has no cross-signing"
    ABSENT = "none"
    OURS = "the one whose seeds are in the store"
    OURS_IN_PART = "the one whose seeds are in the store, as far as its keys are there: the others are missing"
    NEXT = "the one of a reset that was cut short"
    FORMER = "the one that was ours, and that another client had replaced: the homeserver was put back"
    OTHER = "one whose seeds are not in the store"


class Storage(enum.Enum):
    """What is in the account's secret storage on the homeserver."""

    ABSENT = "nothing"
    WHOLE = "all secrets of the store, under a key of the store"
    INCOMPLETE = "a key of the store, but not all secrets, or not the store's"
    LOCKED = "a key that is not in the store"


class OwnDevice(enum.Enum):
    """What the homeserver has of this device."""

    ABSENT = "no keys"
    UNSIGNED = "keys that the present identity did not sign, as far as the signature can be verified"
    SIGNED = "keys that the present identity has signed"


class Step(enum.Enum):
    """Something to do, after which it is asked again."""

    UPLOAD_DEVICE = "upload the device's keys"
    MAKE_KEYS = "make the seeds and the keys of secret storage and backup, and make them durable"
    OPEN_STORAGE = "read the secrets from secret storage"
    WRITE_STORAGE = "put all secrets into secret storage"
    UPLOAD_IDENTITY = "upload the identity"
    UPLOAD_WITH_PASSWORD = "upload the identity, with the password"  # noqa: S105  # no password
    ADOPT_NEXT = "use the seeds of the reset"
    SET_ASIDE = "put the seeds of an identity that was replaced where nothing signs with them"
    TAKE_BACK = "use them again"
    DROP_KEYS = "drop seeds that never became the account's, and what was put into secret storage with them"
    SIGN_DEVICE = "sign the device"


class IdentityState(enum.Enum):
    """How far an account has come with its cross-signing identity. See `docs/trust.md`."""

    #: Nothing was asked yet since the account was opened.
    UNKNOWN = "unknown"
    #: The program does not want it.
    OFF = "off"
    #: The identity signed this device, and its seeds are in the store.
    SIGNED = "signed"
    #: The identity signed this device. Its seeds are with another client.
    SIGNED_ELSEWHERE = "signed elsewhere"
    #: The homeserver has no cross-signing.
    UNSUPPORTED = "unsupported"
    #: The account has no identity. Only `login_or_restore` makes one.
    NO_IDENTITY = "no identity"
    #: Another client made the identity. Its recovery key, or a verification by it, signs this device.
    OTHER_IDENTITY = "another client's identity"
    #: No identity, but secret storage of another client, which is not overwritten.
    LOCKED_STORAGE = "another client's secret storage"
    #: The homeserver keeps an older signature of this device for ever: a new device id helps.
    STALE_SIGNATURE = "stale signature"
    #: The homeserver did not do what it was asked.
    REFUSED = "refused"
    #: Secrets in the store cannot be read; nothing was done.
    UNREADABLE = "unreadable"

    @property
    def is_signed(self) -> bool:
        """Whether other clients see this device as its owner's."""
        return self in (IdentityState.SIGNED, IdentityState.SIGNED_ELSEWHERE)


class Situation(NamedTuple):
    """What the server has, what the store has, and what the program allows."""

    identity: Identity
    storage: Storage
    device: OwnDevice
    #: Whether the three seeds are in the store.
    has_seeds: bool = False
    #: Whether the homeserver once had the identity of these seeds.
    was_ours: bool = False
    may_make: bool = False
    #: Whether a recovery key or passphrase was given.
    has_recovery_key: bool = False
    has_password: bool = False
    #: Whether the homeserver asked for more than the access token, although there is no identity of another client.
    wants_password: bool = False
    #: Whether the homeserver said that it does not take the device's signature.
    refused_signature: bool = False
    #: How often each step was done.
    done: Mapping[Step, int] = {}

    def may_do(self, step: Step) -> bool:
        """Whether this step was not done as often as makes sense."""
        return self.done.get(step, 0) < _TIMES.get(step, 1)


#: Another client may write into secret storage at the same time; there is no way to lock it.
_TIMES: Final = {Step.WRITE_STORAGE: 3}


def next_step(now: Situation) -> Step | IdentityState:
    """What to do, or how it ended."""
    if now.identity is Identity.UNSUPPORTED:
        return IdentityState.UNSUPPORTED
    if now.identity is Identity.NEXT:
        return _if_allowed(Step.ADOPT_NEXT, now, True, IdentityState.REFUSED)
    if now.identity is Identity.FORMER:
        return _if_allowed(Step.TAKE_BACK, now, True, IdentityState.REFUSED)
    if now.identity is Identity.OTHER:
        return _with_other_identity(now)
    if now.identity in (Identity.ABSENT, Identity.OURS_IN_PART):
        return _without_identity(now)
    return _with_own_identity(now)


def _without_identity(now: Situation) -> Step | IdentityState:
    if now.storage is Storage.LOCKED:
        # It may hold an identity's seeds, of a client that was cut short, or a person's only copy of a backup's key.
        return _if_allowed(Step.OPEN_STORAGE, now, now.has_recovery_key, IdentityState.LOCKED_STORAGE)
    if now.has_seeds:
        return _to_own_identity(now)
    if now.storage is not Storage.ABSENT and now.may_do(Step.OPEN_STORAGE):
        return Step.OPEN_STORAGE
    return _if_allowed(Step.MAKE_KEYS, now, now.may_make, IdentityState.NO_IDENTITY)


def _to_own_identity(now: Situation) -> Step | IdentityState:
    # Device keys first: one question then shows the identity and the device.
    if now.device is OwnDevice.ABSENT and now.may_do(Step.UPLOAD_DEVICE):
        return Step.UPLOAD_DEVICE
    # A client of a person replaces an identity whose secret storage is not whole, so that comes before the identity.
    if now.storage is not Storage.WHOLE:
        return _if_allowed(Step.WRITE_STORAGE, now, True, IdentityState.REFUSED)
    if now.may_do(Step.UPLOAD_IDENTITY):
        return Step.UPLOAD_IDENTITY
    # A homeserver before version 1.11 wants a password for an account's first identity, and any to complete one that it
    # took in part.
    wanted = now.wants_password and now.has_password
    return _if_allowed(Step.UPLOAD_WITH_PASSWORD, now, wanted, IdentityState.REFUSED)


def _with_own_identity(now: Situation) -> Step | IdentityState:
    if now.storage in (Storage.ABSENT, Storage.INCOMPLETE) and now.may_do(Step.WRITE_STORAGE):
        return Step.WRITE_STORAGE
    if now.storage is Storage.LOCKED and now.has_recovery_key and now.may_do(Step.OPEN_STORAGE):
        return Step.OPEN_STORAGE
    if now.device is OwnDevice.SIGNED:
        return IdentityState.SIGNED
    if now.device is OwnDevice.ABSENT:
        return _if_allowed(Step.UPLOAD_DEVICE, now, True, IdentityState.REFUSED)
    otherwise = IdentityState.REFUSED if now.refused_signature else IdentityState.STALE_SIGNATURE
    return _if_allowed(Step.SIGN_DEVICE, now, True, otherwise)


def _with_other_identity(now: Situation) -> Step | IdentityState:
    # Nobody must sign with seeds that are not the account's. Those that were once may be again: a homeserver may be put
    # back from a backup.
    not_ours = Step.SET_ASIDE if now.was_ours else Step.DROP_KEYS
    if now.has_seeds and now.may_do(not_ours):
        return not_ours
    can_open = now.storage is not Storage.LOCKED or now.has_recovery_key
    if now.storage is not Storage.ABSENT and can_open and now.may_do(Step.OPEN_STORAGE):
        return Step.OPEN_STORAGE
    return IdentityState.SIGNED_ELSEWHERE if now.device is OwnDevice.SIGNED else IdentityState.OTHER_IDENTITY


def _if_allowed(step: Step, now: Situation, is_allowed: bool, otherwise: IdentityState) -> Step | IdentityState:
    return step if is_allowed and now.may_do(step) else otherwise
