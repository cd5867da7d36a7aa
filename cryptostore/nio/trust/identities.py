"""Cross-signing identities of users, the account's own included."""

from __future__ import annotations

from cryptostore import records
from cryptostore.nio.client.buffer import BufferedStorage
from cryptostore.nio.client.kept import KeptRecords


class Identities(KeptRecords[records.CrossSigningKeys]):
    """What is known of users' identities. Nothing is known of a user whose record cannot be read."""

    def __init__(self, storage: BufferedStorage) -> None:
        super().__init__(storage, records.CrossSigningKeys)

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
