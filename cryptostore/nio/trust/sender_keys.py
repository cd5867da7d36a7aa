"""Device keys inside Olm messages (MSC4147): a device that is gone still proves whose it was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple

from cryptostore import records
from cryptostore.logs import logger
from cryptostore.nio.cache import LiveCache
from cryptostore.nio.client.buffer import BufferedStorage
from cryptostore.nio.pickles import if_valid
from cryptostore.records.changes import Changes

from .key_answers import Signatures, signers

#: The name in an Olm payload (Matrix specification, "m.olm.v1.curve25519-aes-sha2").
SENDER_DEVICE_KEYS: Final = "sender_device_keys"

#: How many signatures of an unknown identity are looked at: a device has one, and some of former identities.
_TRIES: Final = 4

_log: Final = logger(__name__)


class DeviceKeys(NamedTuple):
    """The keys with which a device showed that it has them."""

    ed25519: str
    curve25519: str


class OwnDeviceKeys:
    """This device's keys as the homeserver has them, signed by their owner: what its Olm messages carry.

    They are asked for with each access token, and with every question about the own user. Until then messages carry
    none: without the owner's signature they would say that the device is not signed.
    """

    def __init__(self, user_id: str, device_id: str, signatures: Signatures) -> None:
        self._user_id = user_id
        self._device_id = device_id
        self._signatures = signatures
        self._present: dict[str, Any] | None = None

    def note(self, known: Any, keys: DeviceKeys) -> None:
        """What the homeserver has. Receivers drop a message that carries a wrong object, so such a one is left out."""
        if not _is_device_of(known, self._user_id, keys, self._signatures) or known["device_id"] != self._device_id:
            _log.warning("the homeserver has device keys of %s that this device did not sign", self._device_id)
            self._present = None
            return
        own = {self._user_id: known["signatures"][self._user_id]}
        self._present = {name: value for name, value in known.items() if name != "unsigned"} | {"signatures": own}

    def in_payload(self) -> dict[str, Any]:
        """What an Olm payload has in addition."""
        return {} if self._present is None else {SENDER_DEVICE_KEYS: self._present}


class _Proof:
    """A record that a cache can refer to weakly."""

    def __init__(self, row: records.SenderDevice) -> None:
        self.row = row


class SenderDevices:
    """Devices that sent room keys with a proof of their owner's signature, by their Curve25519 keys."""

    def __init__(self, storage: BufferedStorage, signatures: Signatures) -> None:
        self._storage = storage
        self._signatures = signatures
        self._proofs: LiveCache[str, _Proof] = LiveCache(self._read, lambda _key, row: _Proof(row))
        self._dirty: dict[str, _Proof] = {}

    def of(self, sender_key: str) -> records.SenderDevice | None:
        """What the device with this key has proved."""
        proof = self._proofs.get(sender_key)
        return None if proof is None else proof.row

    def prefetch(self, sender_keys: Iterable[str]) -> Mapping[str, _Proof]:
        """Read many in one round trip, from any thread. They stay in memory as long as the answer does."""
        return self._proofs.fetch(sender_keys)

    def take_in(self, sender: str, sender_key: str, payload: Mapping[str, Any], self_signing_key: str) -> bool:
        """Check the device keys in an Olm payload, and keep what they prove if a room key came with them.

        `self_signing_key` is the sender's, or "" where it is not known. Returns False for device keys that are not the
        sender's: the message is to be refused.
        """
        device = payload.get(SENDER_DEVICE_KEYS)
        if device is None:
            return True
        keys = DeviceKeys(str(payload["keys"].get("ed25519")), sender_key)
        if not _is_device_of(device, sender, keys, self._signatures):
            return False
        signer = self._signer(device, sender, keys, self_signing_key) if payload["type"] == "m.room_key" else ""
        if signer:
            row = partial(records.SenderDevice, sender_key, sender, device["device_id"], keys.ed25519, signer)
            self._keep(if_valid(row))
        return True

    def _keep(self, row: records.SenderDevice | None) -> None:
        known = None if row is None else self._proofs.peek(row.sender_key)
        if row is None or (known is not None and known.row == row):
            return
        proof = self._dirty[row.sender_key] = _Proof(row)
        self._proofs.put(row.sender_key, proof)
        self._storage.touch()

    def _signer(self, device: Mapping[str, Any], user_id: str, keys: DeviceKeys, self_signing_key: str) -> str:
        """The cross-signing key that has signed the device; "" if none has."""
        named = (key_id.removeprefix("ed25519:") for key_id in signers(device, user_id))
        others = (key for key in named if key not in (device["device_id"], keys.ed25519))
        for key in [self_signing_key] if self_signing_key else islice(others, _TRIES):
            if self._signatures.is_signed(device, user_id, key):
                return key
        return ""

    @property
    def is_dirty(self) -> bool:
        """Whether a flush has something to write."""
        return bool(self._dirty)

    def collect(self) -> Changes:
        """The records to write."""
        rows = [proof.row for proof in self._dirty.values()]
        self._dirty = {}
        return Changes(rows)

    def settle(self, batch: Changes) -> None:
        """The batch is durable."""
        for record in batch.puts(records.SenderDevice):
            (sender_key,) = map(str, record.key)
            if sender_key not in self._dirty:
                self._proofs.unpin(sender_key)

    def _read(self, sender_keys: list[str]) -> Mapping[str, records.SenderDevice]:
        found = self._storage.get(records.SenderDevice, [(key,) for key in sender_keys])
        return {str(key[0]): row for key, row in found.items()}


def _is_device_of(device: Any, user_id: str, keys: DeviceKeys, signatures: Signatures) -> bool:
    """Whether this object is a device of the user, has just these keys, and is signed by it."""
    if not isinstance(device, dict) or device.get("user_id") != user_id:
        return False
    device_id, named = device.get("device_id"), device.get("keys")
    if not isinstance(device_id, str) or not isinstance(named, dict):
        return False
    has_keys = all(named.get(f"{name}:{device_id}") == key for name, key in keys._asdict().items())
    return has_keys and signatures.is_signed(device, user_id, keys.ed25519, f"ed25519:{device_id}")
