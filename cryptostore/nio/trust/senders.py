"""Whose a message is: what the keys prove with which it came."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Final

from nio.crypto import InboundGroupSession, OlmDevice

from cryptostore.nio.devices import LazyDeviceStore
from cryptostore.nio.provenance import is_from_backup

from .identities import Identities
from .policies import TrustPolicy
from .recipients import Decisions
from .sender_keys import SenderDevices


class SenderTrust(enum.StrEnum):
    """What is known of the device that sent a message."""

    #: Its owner has signed it and was verified, or the program has verified it by hand, or it is this one.
    VERIFIED = "verified"
    #: Its owner has signed it.
    SIGNED = "signed"
    #: Its owner has signed it, or the program verified it by hand; and the owner was verified with another identity.
    CHANGED = "changed"
    #: Its owner has not signed it, or the program has blacklisted it.
    UNSIGNED = "unsigned"
    #: No device of the sender is known with these keys, or the message's key is not there.
    UNKNOWN = "unknown"
    #: The key came from a backup, a file, or another device than the sender's: it proves nothing.
    INDIRECT = "indirect"
    #: The message was not encrypted.
    UNENCRYPTED = "unencrypted"


#: What each policy takes. Keys from the account's own backup are how a new device reads history, but whoever knows the
#: backup's public key can put one there.
_ACCEPTED: Final = {
    TrustPolicy.SIGNED: {SenderTrust.VERIFIED, SenderTrust.SIGNED, SenderTrust.INDIRECT},
    TrustPolicy.VERIFIED: {SenderTrust.VERIFIED},
}


class Senders:
    """Judges who sent messages, by their sessions. `is_this_device` says whether this device made a session."""

    def __init__(
        self,
        devices: LazyDeviceStore,
        decisions: Decisions,
        identities: Identities,
        proofs: SenderDevices,
        accept: TrustPolicy,
        is_this_device: Callable[[str, InboundGroupSession], bool],
    ) -> None:
        self._devices = devices
        self._decisions = decisions
        self._identities = identities
        self._proofs = proofs
        self._accept = accept
        self._is_this_device = is_this_device

    def refusal(self, sender: str, session: InboundGroupSession) -> SenderTrust | None:
        """Why messages of this sender and session are not decrypted; None if they are."""
        if self._accept is TrustPolicy.ALL:
            return None
        trust = self.trust(sender, session)
        return None if trust in _ACCEPTED[self._accept] else trust

    def trust(self, sender: str, session: InboundGroupSession | None) -> SenderTrust:
        """What a message's session proves of its sender."""
        if session is None:
            return SenderTrust.UNKNOWN
        if session.forwarding_chain or is_from_backup(session):
            return SenderTrust.INDIRECT
        if self._is_this_device(sender, session):
            return SenderTrust.VERIFIED
        device = self._device(sender, session)
        if device is not None and self._decisions.is_device_blacklisted(device):
            return SenderTrust.UNSIGNED
        if device is not None and self._decisions.is_device_verified(device):
            return SenderTrust.CHANGED if self._identities.is_stopped(sender) else SenderTrust.VERIFIED
        if self._is_signed(sender, session, device):
            return self._trust_in_owner(sender)
        return SenderTrust.UNKNOWN if device is None else SenderTrust.UNSIGNED

    def _trust_in_owner(self, user_id: str) -> SenderTrust:
        if self._identities.is_stopped(user_id):
            return SenderTrust.CHANGED
        return SenderTrust.VERIFIED if self._identities.is_verified(user_id) else SenderTrust.SIGNED

    def _device(self, sender: str, session: InboundGroupSession) -> OlmDevice | None:
        """The device with both of the session's keys, also one that is gone."""
        keys: Any = {"curve25519": session.sender_key, "ed25519": session.ed25519}
        return next((device for device in list(self._devices[sender].values()) if device.keys == keys), None)

    def _is_signed(self, sender: str, session: InboundGroupSession, device: OlmDevice | None) -> bool:
        if device is not None and self._identities.is_signed_by_owner(sender, device.id, device.ed25519):
            return True
        identity, proof = self._identities.of(sender), self._proofs.of(session.sender_key)
        if identity is None or proof is None:
            return False
        shown = (proof.user_id, proof.signing_key, proof.self_signing_key)
        return shown == (sender, session.ed25519, identity.self_signing_key)
