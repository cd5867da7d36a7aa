"""What is kept of the account's own identity beside its secrets. None of it is secret."""

from __future__ import annotations

import json
from typing import Any, Final

from cryptostore.nio.client.buffer import BufferedStorage
from cryptostore.plugins.observers import notify
from cryptostore.records import Value
from cryptostore.records.changes import Changes
from cryptostore.trust.secret_storage import KeyDescription

#: The record, by namespace and name.
OWN_IDENTITY: Final = ("trust", "own identity")


class OwnNotes:
    """Which identity was seen to be ours, and how its secret storage is described.

    The description is written with the key that it describes, so that a start that was cut short puts the same one on
    the homeserver: of a passphrase it holds the salt.
    """

    def __init__(self, storage: BufferedStorage) -> None:
        self._storage = storage
        found = storage.get(Value, [OWN_IDENTITY])
        #: Whether they are there, and cannot be read.
        self.is_unreadable: bool = OWN_IDENTITY in found.unreadable
        record = found.get(OWN_IDENTITY)
        said: dict[str, Any] = {} if record is None else json.loads(record.value)
        #: The master key of our seeds that the homeserver last had as the account's; empty if it never had.
        self.master_key: str = said.get("master_key", "")
        key_id = said.get("storage_key", "")
        self.description: KeyDescription | None = KeyDescription.parse(key_id, said.get("description"))
        #: Whether this client made the secret storage.
        self.made_storage: bool = said.get("made_storage", False)
        #: Whether it is to take the place of whatever is there: that of an identity that was replaced.
        self.replaces_storage: bool = said.get("replaces_storage", False)

    def note_ours(self, master_key: str) -> None:
        """The homeserver has this identity, whose seeds are in the store."""
        if self.master_key != master_key:
            account, previous = self._storage.account, self.master_key
            self.master_key = master_key
            self._write()
            facts = {"identity_of": account.user_id, "previous": previous, "present": master_key}
            notify("cryptostore_identity_changed", account=account, **facts)

    def note_storage(self, description: KeyDescription | None, *, made: bool, replaces: bool = False) -> None:
        """Secret storage is opened by the key that this describes; by none."""
        if (self.description, self.made_storage, self.replaces_storage) != (description, made, replaces):
            self.description, self.made_storage, self.replaces_storage = description, made, replaces
            self._write()

    def _write(self) -> None:
        described = self.description
        said = {
            "master_key": self.master_key,
            "storage_key": described.key_id if described else "",
            "description": described.content() if described else {},
            "made_storage": self.made_storage,
            "replaces_storage": self.replaces_storage,
        }
        self._storage.write(Changes([Value(*OWN_IDENTITY, json.dumps(said).encode())]))
