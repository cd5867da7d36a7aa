"""The secrets of the account's own identity, as the store has them: the seeds, the keys of secret storage and backup.

Each change is one step without a request, so that it is in one batch.
"""

from __future__ import annotations

import secrets as random
from collections.abc import Mapping
from typing import Final

from cryptostore.errors import UnreadableRecord
from cryptostore.nio.client.session import Session
from cryptostore.trust.cross_signing import SECRET_NAMES, PublicIdentity, Seeds
from cryptostore.trust.key_backup import KEY_BACKUP
from cryptostore.trust.secret_storage import KEY_DESCRIPTION

from .own_notes import OwnNotes
from .own_steps import Storage
from .secret_storage import NAMES, Contents, RecoveryKey, StorageKey, new_storage_key
from .secrets import Secrets

#: Before the name of a seed of an identity that is to replace the present one, and of one that another client replaced.
NEXT: Final = "next "
FORMER: Final = "former "

_KEY_BYTES: Final = 32


class OwnKeys:
    """The keys of the open account's user."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def _secrets(self) -> Secrets:
        return self._session.store.secrets

    @property
    def _notes(self) -> OwnNotes:
        notes = self._session.store.own_notes
        if notes.is_unreadable:
            raise UnreadableRecord(
                "what is kept of the account's own identity cannot be read, so nothing takes its place; restore the "
                "account from a backup"
            )
        return notes

    @property
    def seeds(self) -> Seeds | None:
        """The seeds of the identity, all three or None. Raises UnreadableRecord for those that cannot be read."""
        return self._secrets.seeds()

    @property
    def present_seeds(self) -> Seeds:
        """The seeds. Raises LookupError if there are none."""
        if (seeds := self.seeds) is None:
            raise LookupError("the account has no seeds")
        return seeds

    @property
    def next_seeds(self) -> Seeds | None:
        """The seeds of an identity that is to replace it. Raises UnreadableRecord."""
        return self._secrets.seeds(NEXT)

    @property
    def former_seeds(self) -> Seeds | None:
        """The seeds of an identity that another client replaced. Raises UnreadableRecord."""
        return self._secrets.seeds(FORMER)

    @property
    def storage_key(self) -> StorageKey | None:
        """The key of secret storage, or None. Raises UnreadableRecord."""
        description = self._notes.description
        key = self._secrets.get(KEY_DESCRIPTION + description.key_id) if description else None
        return StorageKey(key, description) if key is not None and description else None

    @property
    def made_storage(self) -> bool:
        """Whether this client made the secret storage, and not a person's."""
        return self._notes.made_storage

    def judge(self, contents: Contents) -> Storage:
        """How secret storage compares to what is here."""
        found = contents.judge(self.storage_key, self.secrets())
        if self._notes.replaces_storage and found is Storage.LOCKED:
            return Storage.ABSENT
        if self._notes.replaces_storage and found is Storage.WHOLE:
            self._notes.note_storage(self._notes.description, made=True)
        return found

    @property
    def confirmed_master_key(self) -> str:
        """The master key of ours that the homeserver last had as the account's; empty if it never had one."""
        return self._notes.master_key

    def secrets(self) -> dict[str, bytes]:
        """Everything that belongs into secret storage; nothing without seeds. Raises UnreadableRecord."""
        seeds, backup = self.seeds, self._secrets.get(KEY_BACKUP)
        if seeds is None:
            return {}
        return seeds.by_name() | ({} if backup is None else {KEY_BACKUP: backup})

    def confirm(self, master_key: str) -> None:
        """The homeserver has this identity of ours."""
        self._notes.note_ours(master_key)

    async def make(self, given: RecoveryKey | None) -> None:
        """New seeds and, where there are none, keys of secret storage and backup. A storage key that is there stays."""
        if self.storage_key is None:
            await self.make_storage_key(given)
        self._put("", Seeds.new())
        self._make_backup_key()

    async def make_storage_key(self, given: RecoveryKey | None) -> StorageKey:
        """A new key of secret storage, which what was given will open, or a random one."""
        key = await given.new(self._session.threads) if given is not None else new_storage_key()
        self._keep_storage_key(key, made=True, is_known=given is not None)
        return key

    def take_over(
        self, held: StorageKey, contents: Contents, identity: PublicIdentity | None, *, must_match: bool
    ) -> str:
        """Take secrets from secret storage that was opened. Nothing is taken that is not of the identity.

        Returns why not, or an empty text. Without `must_match` whatever is there will do: there is no identity yet.
        """
        found = {name: secret for name in NAMES if (secret := contents.secret(name, held)) is not None}
        seeds = Seeds.of(found)
        present = self.seeds
        is_present = present is not None and identity is not None and present.public == identity.public_keys
        if must_match and not is_present and (problem := _problem(found, seeds, identity)):
            return problem
        if seeds is not None and not is_present:
            self._put("", seeds)
        if KEY_BACKUP in found:
            self._secrets.put(KEY_BACKUP, found[KEY_BACKUP])
        if held != self.storage_key:
            self._keep_storage_key(held, made=False, is_known=True)
        return ""

    def adopt_backup_key(self, contents: Contents) -> None:
        """A person who makes a new backup puts its key there."""
        held = self.storage_key
        key = contents.secret(KEY_BACKUP, held) if held is not None else None
        if key is not None:
            self._secrets.put(KEY_BACKUP, key)

    def make_next(self) -> Seeds:
        """Seeds for an identity that is to replace the present one: those of an earlier try, or new ones."""
        seeds = self.next_seeds or Seeds.new()
        self._put(NEXT, seeds)
        return seeds

    def drop_next(self) -> None:
        """Forget the seeds of an identity that the homeserver will never take."""
        self._drop(NEXT)

    async def adopt_next(self, given: RecoveryKey | None) -> None:
        """The seeds that were next are the present ones. Secret storage gets a new key: the old one may be known."""
        key = await given.new(self._session.threads) if given is not None else new_storage_key()
        self._move(NEXT, "")
        self._make_backup_key()
        self._keep_storage_key(key, made=True, is_known=given is not None, replaces=True)

    def set_aside(self) -> None:
        """The identity was replaced by another client's: nothing is to be signed with these seeds."""
        self._move("", FORMER)

    def take_back(self) -> None:
        """The identity that was replaced is the account's again."""
        self._move(FORMER, "")

    def drop(self) -> None:
        """Forget seeds that never became the account's, and what was made with them."""
        self._drop("")
        if self.made_storage and (held := self.storage_key) is not None:
            self._secrets.drop(KEY_DESCRIPTION + held.key_id)
            self._secrets.drop(KEY_BACKUP)
            self._notes.note_storage(None, made=False)

    def _move(self, before: str, after: str) -> None:
        seeds = self._secrets.seeds(before)
        if seeds is not None:
            self._put(after, seeds)
        self._drop(before)

    def _put(self, prefix: str, seeds: Seeds) -> None:
        for name, seed in seeds.by_name().items():
            self._secrets.put(prefix + name, seed)

    def _make_backup_key(self) -> None:
        if self._secrets.get(KEY_BACKUP) is None:
            self._secrets.put(KEY_BACKUP, random.token_bytes(_KEY_BYTES))

    def _drop(self, prefix: str) -> None:
        for name in SECRET_NAMES:
            self._secrets.drop(prefix + name)

    def _keep_storage_key(self, key: StorageKey, *, made: bool, is_known: bool, replaces: bool = False) -> None:
        former = self.storage_key
        if former is not None and former.key_id != key.key_id:
            self._secrets.drop(KEY_DESCRIPTION + former.key_id)
        self._secrets.put(KEY_DESCRIPTION + key.key_id, key.key)
        if is_known:
            self._secrets.note_shown(KEY_DESCRIPTION + key.key_id)
        self._notes.note_storage(key.description, made=made, replaces=replaces)


def _problem(found: Mapping[str, bytes], seeds: Seeds | None, identity: PublicIdentity | None) -> str:
    """Why secrets are not those of the account's identity; empty if they are."""
    if seeds is None:
        missing = ", ".join(name for name in SECRET_NAMES if name not in found)
        return f"the account's secret storage has no {missing} that its key opens"
    if identity is None or seeds.public != identity.public_keys:
        return "the secrets in the account's secret storage are not those of the identity that the homeserver has"
    return ""
