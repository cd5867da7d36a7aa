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
    ├── StoreClosed
    ├── ReadOnlyStore
    ├── AccountNotFound
    ├── SchemaError
    │   └── SchemaTooNew
    ├── WrongPickleKey
    ├── UnreadableRecord
    ├── HomeserverUnavailable
    └── AccessTokenRejected

None derives from OSError or TimeoutError: matrix-nio retries those for ever, and a client would hang on a database
error instead of showing it.
"""

from __future__ import annotations

from datetime import datetime


class CryptoStoreError(Exception):
    """Base of every error that this project raises on purpose."""


class PluginError(CryptoStoreError):
    """A backend plugin cannot be used."""


class BackendNotFound(PluginError):
    """No installed distribution offers a backend of this name."""


class BackendLoadError(PluginError):
    """The backend's own code failed while it was imported or registered; the cause is attached."""


class BackendInvalid(PluginError):
    """The plugin was loaded, but does not offer what its entry point promises."""


class BackendIncompatible(PluginError):
    """The backend was written for an interface version that this core does not speak."""


class AmbiguousBackend(PluginError):
    """Two installed distributions claim the same backend name; the choice is the user's, never ours."""


class ConfigurationError(CryptoStoreError):
    """The URL, an option, or the database behind it is not as it must be; the text holds the remedy."""


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

    Raised by `CryptoStore.apply`, it leaves the outcome of that batch open: the batch stays pending.
    """


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
        """What a backend raises when it finds that `owner` took the account over."""
        return cls(
            f"{account} was taken over by {owner} at {since}; an account has one owner: stop the other program, or "
            "this one, and open the account again",
            owner=owner,
            since=since,
        )


class StoreClosed(CryptoStoreError):
    """The store or its backend was closed."""


class ReadOnlyStore(CryptoStoreError):
    """The store was opened in READ mode and cannot write."""


class AccountNotFound(CryptoStoreError):
    """The account is not in this database, or was deleted under a running owner."""

    @classmethod
    def missing(cls, account: object) -> AccountNotFound:
        """What a backend raises for an account that it does not have."""
        return cls(
            f"{account} is not in this database; check the URL, the user id and the device id, or open the account "
            "with Mode.OWN, which makes it"
        )

    @classmethod
    def deleted(cls, account: object) -> AccountNotFound:
        """What a backend raises when it finds that the account was deleted since it was opened."""
        return cls(
            f"{account} was deleted since it was opened; this handle can write no more: restore the account from a "
            "backup, or stop, open it anew and log in as a new device"
        )


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
