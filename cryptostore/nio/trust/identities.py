"""Cross-signing identities of users, the account's own included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, Final

from cryptostore import records
from cryptostore.logs import logger
from cryptostore.nio import bounds
from cryptostore.nio.client.buffer import BufferedStorage
from cryptostore.nio.client.kept import KeptRecords
from cryptostore.nio.pickles import if_valid
from cryptostore.nio.times import now
from cryptostore.plugins.observers import notify
from cryptostore.trust.cross_signing import PublicIdentity

from .key_answers import Judged, Signatures

_log: Final = logger(__name__)


class Identities(KeptRecords[records.CrossSigningKeys]):
    """What is known of users' identities: the first master key that is seen of a user is pinned.

    A user whose record cannot be read may have been verified, and counts as one whose identity changed since.
    """

    def __init__(self, storage: BufferedStorage) -> None:
        super().__init__(storage, records.CrossSigningKeys)
        self._account = storage.account
        #: What was verified of devices.
        self.signatures: Final = Signatures()
        #: The changes that nobody was told of yet.
        self.changes: Final = KeptRecords(storage, records.IdentityChange)
        #: Called with a user whose devices may get other keys now.
        self.on_change: Callable[[str], None] = lambda _user_id: None
        self._refused = {str(key[0]) for key in self.unreadable}
        for key in self.changes.unreadable:
            self.changes.forget(key)
            self._tell_again(str(key[0]))

    def of(self, user_id: str) -> records.CrossSigningKeys | None:
        """The user's identity; None if the user has none, as far as is known."""
        return self.rows.get((user_id,))

    def is_signed_by_owner(self, user_id: str, device_id: str, signing_key: str) -> bool:
        """Whether the device with this Ed25519 key is signed by its user's present self-signing key."""
        identity = self.of(user_id)
        return identity is not None and identity.signed_devices.get(device_id) == signing_key

    def is_changed(self, user_id: str) -> bool:
        """Whether the user's master key is another than the one that was pinned."""
        identity = self.of(user_id)
        return identity is not None and identity.master_key != identity.pinned_master_key

    def is_verified(self, user_id: str) -> bool:
        """Whether the user's present master key was verified."""
        identity = self.of(user_id)
        return identity is not None and identity.verified and not self.is_changed(user_id)

    def is_stopped(self, user_id: str) -> bool:
        """Whether the user was verified with another master key, so that room keys stop until somebody decides."""
        identity = self.of(user_id)
        return user_id in self._refused or (identity is not None and identity.verified and self.is_changed(user_id))

    def accept(self, user_id: str) -> bool:
        """Pin the present master key. Another one than the pinned one is not verified. Returns whether that changed
        anything.
        """
        identity = self.of(user_id)
        if user_id in self._refused:
            self._refused.discard(user_id)
            self.forget((user_id,))
            self.on_change(user_id)
            return True
        if identity is None or not self.is_changed(user_id):
            return False
        return self._put(replace(identity, pinned_master_key=identity.master_key, verified=False))

    def set_verified(self, user_id: str, master_key: str) -> bool:
        """The user's master key was verified, and is pinned. Returns False if the present one is another."""
        identity = self.of(user_id)
        if identity is None or identity.master_key != master_key:
            return False
        self._put(replace(identity, pinned_master_key=master_key, verified=True, withdrawn_master_key=""))
        return True

    def withdraw_verification(self, user_id: str) -> bool:
        """The user is not verified, and the present master key is pinned. Returns whether that changed anything."""
        identity = self.of(user_id)
        if identity is None or not identity.verified:
            return False
        key = identity.master_key
        return self._put(replace(identity, pinned_master_key=key, verified=False, withdrawn_master_key=key))

    def take_in(self, user_id: str, judged: Judged, is_kept: Callable[[str], bool]) -> bool:
        """What an answer proves of a user. Devices that are not kept do not count. Returns whether that is new.

        An identity does not go away: an answer without one changes nothing but which devices are signed.
        """
        before, identity = self.of(user_id), judged.identity
        is_verified = judged.is_verified
        keys = before if identity is None else if_valid(partial(_with_keys, identity, before, is_verified=is_verified))
        if user_id in self._refused or keys is None:
            return False
        after = if_valid(partial(_with_devices, keys, before, judged.signed_keys, is_kept))
        return after is not None and self._put(after)

    def _put(self, after: records.CrossSigningKeys) -> bool:
        before = self.of(after.user_id)
        if after == before:
            return False
        self.put(after)
        if after.master_key == after.pinned_master_key:
            self.changes.drop(after.key)
        elif before is None or after.master_key != before.master_key:
            self._note_change(after)
        self.on_change(after.user_id)
        return True

    def _note_change(self, identity: records.CrossSigningKeys) -> None:
        user_id, pinned, present = identity.user_id, identity.pinned_master_key, identity.master_key
        self.changes.put(records.IdentityChange(user_id, pinned, present, identity.verified, now()))
        consequence = "; no room keys go there until that is accepted or verified" if identity.verified else ""
        _log.warning("the identity of %s has changed%s", ascii(user_id), consequence)
        facts = {"identity_of": user_id, "previous": pinned, "present": present}
        notify("cryptostore_identity_changed", account=self._account, **facts)

    def _tell_again(self, user_id: str) -> None:
        identity = self.of(user_id)
        if identity is not None and self.is_changed(user_id):
            self._note_change(identity)


def _with_keys(
    identity: PublicIdentity, before: records.CrossSigningKeys | None, *, is_verified: bool
) -> records.CrossSigningKeys:
    """The record with the identity's present keys. Raises InvalidRecord."""
    master, self_signing, user_signing = identity.master_key, identity.self_signing_key, identity.user_signing_key
    if before is None:
        return records.CrossSigningKeys(identity.user_id, master, self_signing, master, user_signing, is_verified)
    after = replace(before, master_key=master, self_signing_key=self_signing, user_signing_key=user_signing)
    if not is_verified or master == before.withdrawn_master_key:
        return after
    return replace(after, pinned_master_key=master, verified=True)


def _with_devices(
    keys: records.CrossSigningKeys,
    before: records.CrossSigningKeys | None,
    signed_keys: Mapping[str, str],
    is_kept: Callable[[str], bool],
) -> records.CrossSigningKeys:
    """The record with the devices that the present self-signing key has signed. Raises InvalidRecord."""
    is_same = before is not None and before.self_signing_key == keys.self_signing_key
    gone = _gone(keys.signed_devices, signed_keys) if is_same else {}
    signed = {device_id: key for device_id, key in signed_keys.items() if key and is_kept(device_id)}
    return replace(keys, signed_devices={**gone, **signed})


def _gone(signed: Mapping[str, Any], present: Mapping[str, str]) -> dict[str, Any]:
    """The devices that were signed and are not there any more: what they wrote is still theirs."""
    gone = {device_id: key for device_id, key in signed.items() if device_id not in present}
    return dict(islice(gone.items(), max(0, bounds.DEVICES - len(present))))
