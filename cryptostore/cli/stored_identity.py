"""What a database knows of an account's cross-signing identity, recovery key and key backup."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final, NamedTuple, Self

from cryptostore.errors import ConfigurationError, UnreadableRecord
from cryptostore.records import CrossSigningKeys, KeyBackup, OlmAccount, Secret, SessionToBackUp
from cryptostore.store.crypto_store import CryptoStore
from cryptostore.store.keys import encode_key
from cryptostore.store.verifying import UnreadableRow
from cryptostore.trust.cross_signing import SECRET_NAMES, Seeds
from cryptostore.trust.key_backup import KEY_BACKUP
from cryptostore.trust.secret_storage import KEY_DESCRIPTION

from .databases import olm_account_of

_OLM_ACCOUNT: Final = encode_key(OlmAccount, ())


class StoredStorageKey(NamedTuple):
    """When the key of secret storage was made, and shown if so; the key itself stays sealed."""

    key_id: str
    made_at: datetime
    shown_at: datetime | None


@dataclass(frozen=True)
class StoredIdentity:
    """All of it, without a secret."""

    #: The device's Ed25519 key; None for an account without an Olm account, or one that is lost or damaged.
    signing_key: str | None
    keys: CrossSigningKeys | None
    is_signed: bool
    #: Whether all three seeds are here, and whether they are those of `keys`.
    has_seeds: bool
    seeds_match: bool
    storage_key: StoredStorageKey | None
    backup: KeyBackup | None
    has_backup_key: bool
    sessions_waiting: int
    #: What is stored and cannot be read, each with the reason.
    unreadable: list[UnreadableRow]

    @property
    def is_changed(self) -> bool:
        """Whether the identity is another than the one that was pinned."""
        return self.keys is not None and self.keys.master_key != self.keys.pinned_master_key

    @property
    def is_device_lost(self) -> bool:
        """Whether the Olm account is damaged, or missing although there are other records."""
        return any(row.key == _OLM_ACCOUNT for row in self.unreadable)

    @classmethod
    def read(cls, store: CryptoStore, most_waiting: int | None = None) -> Self:
        """What the store holds. Raises what look-ups raise.

        Waiting sessions are counted up to `most_waiting`.
        """
        unreadable: list[UnreadableRow] = []
        signing_key = _signing_key(store, unreadable)
        identities = store.get(CrossSigningKeys, [(store.account.user_id,)])
        secrets = store.select(Secret, [()])
        backups = store.get(KeyBackup, [()])
        keys = identities.get((store.account.user_id,))
        records = {record.name: record for record in secrets[()]}
        for kind, found in ((CrossSigningKeys, identities), (Secret, secrets), (KeyBackup, backups)):
            for key, reason in found.unreadable.items():
                raw_key = bytes([kind.kind_number]) if key is None else encode_key(kind, key)
                unreadable.append(UnreadableRow(raw_key, reason))
        seeds = _seeds(store, records, unreadable)
        return cls(
            signing_key=signing_key,
            keys=keys,
            is_signed=keys is not None and keys.signed_devices.get(store.account.device_id, "") == signing_key,
            has_seeds=seeds is not None,
            seeds_match=seeds is not None and keys is not None and _are_of(seeds, keys),
            storage_key=_storage_key(records),
            backup=backups.get(()),
            has_backup_key=KEY_BACKUP in records,
            sessions_waiting=sum(1 for _ in islice(store.keys(SessionToBackUp), most_waiting)),
            unreadable=unreadable,
        )


def newest_storage_key(records: dict[str, Secret]) -> Secret | None:
    """The record of the key that secret storage has now; those of earlier ones may be kept beside it."""
    of_storage = [record for name, record in records.items() if name.startswith(KEY_DESCRIPTION)]
    return max(of_storage, key=lambda record: record.made_at, default=None)


def _are_of(seeds: Seeds, keys: CrossSigningKeys) -> bool:
    public = seeds.public
    return (public.master, public.self_signing) == (keys.master_key, keys.self_signing_key)


def _storage_key(records: dict[str, Secret]) -> StoredStorageKey | None:
    found = newest_storage_key(records)
    if found is None:
        return None
    key_id = found.name.removeprefix(KEY_DESCRIPTION)
    return StoredStorageKey(key_id, found.made_at, found.shown_at if found.shown else None)


def _signing_key(store: CryptoStore, unreadable: list[UnreadableRow]) -> str | None:
    # nio takes half a second to import; the other commands do without it.
    from cryptostore.nio.pickles import Pickles

    try:
        record = olm_account_of(store)
        return None if record is None else str(Pickles(store.account).account(record).identity_keys["ed25519"])
    except (UnreadableRecord, ConfigurationError) as error:
        unreadable.append(UnreadableRow(_OLM_ACCOUNT, str(error)))
        return None


def _seeds(store: CryptoStore, records: dict[str, Secret], unreadable: list[UnreadableRow]) -> Seeds | None:
    """The three seeds, if all are there and can be opened."""
    opened: dict[str, bytes] = {}
    for name in SECRET_NAMES:
        if name in records:
            try:
                opened[name] = store.secrets.open(name, records[name].sealed)
            except UnreadableRecord as error:
                unreadable.append(UnreadableRow(encode_key(Secret, (name,)), str(error)))
    return Seeds.of(opened)
