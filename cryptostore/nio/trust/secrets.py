"""The account's secrets: cross-signing seeds, the key of the backup, keys of secret storage."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from cryptostore import records
from cryptostore.errors import UnreadableRecord
from cryptostore.nio.client.buffer import BufferedStorage
from cryptostore.nio.client.kept import KeptRecords
from cryptostore.nio.times import now
from cryptostore.store.secrets import SecretSeal
from cryptostore.trust.cross_signing import SECRET_NAMES, Seeds


class Secrets:
    """Secrets by their names. What changes is written with the next flush, and so before any later request."""

    def __init__(self, storage: BufferedStorage, seal: SecretSeal) -> None:
        self._seal = seal
        #: The records.
        self.kept: Final = KeptRecords(storage, records.Secret)

    def get(self, name: str) -> bytes | None:
        """The secret with this name; None if there is none. Raises UnreadableRecord for one that cannot be read."""
        if (name,) in self.kept.unreadable:
            raise UnreadableRecord(
                f"the secret {name} cannot be read, so nothing takes its place; restore the account from a backup"
            )
        row = self.kept.rows.get((name,))
        return None if row is None else self._seal.open(name, row.sealed)

    def seeds(self, prefix: str = "") -> Seeds | None:
        """The three seeds under names with this before them; None where one is missing. Raises as `get` does."""
        return Seeds.of({name: self.get(prefix + name) for name in SECRET_NAMES})

    def put(self, name: str, secret: bytes) -> None:
        """Keep a secret; it was not shown yet. Raises UnreadableRecord where one that cannot be read has its name."""
        if self.get(name) != secret:
            self.kept.put(records.Secret(name, self._seal.seal(name, secret), now()))

    def drop(self, name: str) -> None:
        """Forget a secret."""
        self.kept.drop((name,))

    def is_shown(self, name: str) -> bool:
        """Whether a person has seen the secret."""
        row = self.kept.rows.get((name,))
        return row is not None and row.shown

    def note_shown(self, name: str) -> None:
        """A person has seen the secret."""
        row = self.kept.rows.get((name,))
        if row is not None and not row.shown:
            self.kept.put(replace(row, shown_at=now()))

    def names(self, prefix: str = "") -> list[str]:
        """The names of all secrets that begin like this, in order."""
        return sorted(row.name for row in self.kept.rows.values() if row.name.startswith(prefix))
