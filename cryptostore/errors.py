"""Everything that can go wrong, in one tree.

    CryptoStoreError
    ├── PluginError
    │   ├── BackendNotFound
    │   ├── BackendLoadError
    │   ├── BackendInvalid
    │   ├── BackendIncompatible
    │   └── AmbiguousBackend
    ├── ConfigurationError
    ├── InvalidRecord
    ├── BackendUnavailable
    ├── StorageFull
    ├── FencedOut
    ├── DatabaseWentBack
    ├── StoreClosed
    ├── ReadOnlyStore
    ├── AccountNotFound
    ├── AccountElsewhere
    ├── SchemaError
    │   └── SchemaTooNew
    ├── WrongPickleKey
    ├── UnreadableRecord
    ├── HomeserverUnavailable
    ├── AccessTokenRejected
    └── VerificationCancelled

None derives from OSError or TimeoutError: matrix-nio retries those forever, and a client would hang on a database
error instead of showing it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from .shown import shown


class CryptoStoreError(Exception):
    """Base of every error that this project raises on purpose.

    Its text may quote what strangers chose, and is fit to be shown; the attributes of an error are as they came.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*(shown(each) if isinstance(each, str) else each for each in args))


class PluginError(CryptoStoreError):
    """A backend plugin cannot be used."""


class BackendNotFound(PluginError):
    """No installed distribution offers a backend of this name."""


class BackendLoadError(PluginError):
    """The backend's own code failed while it was imported or registered; the cause is attached."""


class BackendInvalid(PluginError):
    """The plugin does not offer what its entry point promises, or its database breaks the rules of the interface."""


class BackendIncompatible(PluginError):
    """The backend was written for an interface version that this core does not speak."""


class AmbiguousBackend(PluginError):
    """Two installed distributions claim the same backend name; the choice is the user's, never ours."""


class ConfigurationError(CryptoStoreError):
    """The URL, an option, a pickle key or the database's set-up has to be changed; the text says how."""


class InvalidRecord(CryptoStoreError):
    """A record, a key or a batch breaks the rules that every backend shares.

    `kind` is the record kind's name and `field` the offending field's.
    """

    def __init__(self, kind: str, field: str, reason: str) -> None:
        super().__init__(f"{kind}.{field} {reason}")
        self.kind = kind
        self.field = field
        self.reason = reason

    def __reduce__(self) -> tuple[type[InvalidRecord], tuple[str, str, str]]:
        return type(self), (self.kind, self.field, self.reason)


class BackendUnavailable(CryptoStoreError):
    """The database did not answer inside the deadline; trying again later may work.

    `outcome_unknown` says whether something that was sent may have been done all the same. Raised by
    `CryptoStore.apply` with it, the batch stays pending; without it, nothing of the batch was sent.
    """

    def __init__(self, message: str, *, outcome_unknown: bool = True) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown


class StorageFull(CryptoStoreError):
    """The database has no room left. The batch was rolled back; nothing of it is stored."""


class FencedOut(CryptoStoreError):
    """A newer owner opened this account; this handle can never write again.

    `owner` names who took over and `since` when. With `outcome_unknown` the last batch was sent at least once without
    an answer, so it may have been committed before the take-over.
    """

    def __init__(
        self, message: str, *, owner: str = "", since: datetime | None = None, outcome_unknown: bool = False
    ) -> None:
        super().__init__(message)
        self.owner = owner
        self.since = since
        self.outcome_unknown = outcome_unknown

    @classmethod
    def by(cls, owner: str, since: datetime, account: object) -> FencedOut:
        """The error for an account that `owner` took over."""
        return cls(
            f"{account} was taken over by {owner} at {since}; an account has one owner: stop the other program, or "
            "this one, and open the account again",
            owner=owner,
            since=since,
        )


class DatabaseWentBack(CryptoStoreError):
    """The database is older than what it acknowledged to this owner, as after a backup was put back.

    `acknowledged` is the number of the last batch that was acknowledged, `found` that of the last one that is there; of
    anchors where a client compares the database with the homeserver's before it takes the account over.
    """

    def __init__(self, message: str, *, acknowledged: int = 0, found: int = 0) -> None:
        super().__init__(message)
        self.acknowledged = acknowledged
        self.found = found

    @classmethod
    def to(cls, account: object, acknowledged: int, found: int) -> DatabaseWentBack:
        """What is raised for an account whose last batch is number `found`, perhaps an earlier owner's."""
        return cls(
            f"the database of {account} is older than what it acknowledged to this owner, who took it over and "
            f"committed up to batch {acknowledged}; it is as it was after batch {found}. Was a backup put back while "
            "this program ran? Put the newest copy back. If the older one is to go on, without the keys of the lost "
            "batches, run `cryptostore restored` for this account, and start this program again",
            acknowledged=acknowledged,
            found=found,
        )


class StoreClosed(CryptoStoreError):
    """The store or its backend was closed."""


class ReadOnlyStore(CryptoStoreError):
    """The store was opened in READ mode and cannot write."""


class AccountNotFound(CryptoStoreError):
    """The account is not in this database, or was deleted under a running owner."""

    @classmethod
    def missing(cls, account: object) -> AccountNotFound:
        """The error for an account that the database does not have."""
        return cls(
            f"{account} is not in this database; check the URL, the user id and the device id, or open the account "
            "with Mode.OWN, which makes it"
        )

    @classmethod
    def deleted(cls, account: object) -> AccountNotFound:
        """The error for an account that was deleted after it was opened."""
        return cls(
            f"{account} was deleted since it was opened; this handle can write no more: restore the account from a "
            "backup, or stop, open it again and log in as a new device"
        )


class AccountElsewhere(CryptoStoreError):
    """The account was moved to another database, or its copy here is not complete. Nothing was taken over."""


class SchemaError(CryptoStoreError):
    """The database's tables are missing or not as this program's migrations left them."""


class SchemaTooNew(SchemaError):
    """A newer program migrated this database, and says that this one must not touch it."""


class WrongPickleKey(CryptoStoreError):
    """The pickle key is not the one that this account was saved with; nothing is damaged."""


class UnreadableRecord(CryptoStoreError):
    """A stored row cannot be turned into a record. It is kept as it is."""


class HomeserverUnavailable(CryptoStoreError):
    """The homeserver gave no usable answer where the client needs one; trying again later may work."""


class AccessTokenRejected(CryptoStoreError):
    """The homeserver does not accept the access token any more; a new login, as the same device, is needed."""


class VerificationCancelled(CryptoStoreError):
    """A verification has ended without a result.

    `code` is one of the specification, such as `m.user` or `m.timeout`, or another, and `reason` a text for people;
    both are the other side's words, unless it ended `by_us`.
    """

    def __init__(self, message: str, *, code: str = "", reason: str = "", by_us: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.by_us = by_us
