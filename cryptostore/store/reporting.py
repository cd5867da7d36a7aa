"""What the observers are told of one store."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final, Protocol

from cryptostore.errors import BackendUnavailable, CryptoStoreError, FencedOut
from cryptostore.records.record import Account, Key

from .attempts import Attempts
from .sequence import Put


class Notify(Protocol):
    """Calls the observers' hook of this name, with the facts as arguments."""

    def __call__(self, hook: str, **facts: Any) -> None: ...


def no_observers(hook: str, **facts: Any) -> None:
    """Takes the place of observers where there are none."""


class Reports:
    """Tells the observers of the account that `owner` has opened."""

    def __init__(self, account: Account, owner: str, notify: Notify) -> None:
        self._account: Final = account
        self._owner: Final = owner
        self._notify: Final = notify
        self._away_since: float | None = None
        self._is_fenced = False

    def applied(self, put: Put, attempts: Attempts) -> None:
        """What was to be put is durable; nothing was sent where that is empty."""
        if not put.records:
            return
        if self._away_since is not None:
            seconds = time.monotonic() - self._away_since
            self._away_since = None
            self._notify("cryptostore_recovered", account=self._account, seconds=seconds)
        facts = {"seconds": attempts.elapsed, "retries": attempts.retries}
        self._notify("cryptostore_batch_applied", account=self._account, **put._asdict(), **facts)

    def failed(self, error: CryptoStoreError, attempts: Attempts) -> None:
        """A batch ended in an error."""
        facts = {"seconds": attempts.elapsed, "retries": attempts.retries}
        self._notify("cryptostore_batch_failed", account=self._account, **described(error), **facts)
        if isinstance(error, FencedOut):
            self.fenced(error)
        elif isinstance(error, BackendUnavailable) and self._away_since is None:
            self._away_since = time.monotonic() - attempts.elapsed
            self._notify("cryptostore_unavailable", account=self._account, reason=str(error))

    def fenced(self, error: FencedOut) -> None:
        """The account has a newer owner. That is told once."""
        if not self._is_fenced:
            self._is_fenced = True
            facts = {"owner": error.owner, "since": error.since, "previous_owner": self._owner}
            self._notify("cryptostore_fenced", account=self._account, **facts)

    def retried(self, error: BackendUnavailable) -> None:
        """An attempt was in vain, and another follows."""
        self._notify("cryptostore_retried", account=self._account, reason=str(error))

    def unreadable(self, kind: str, key: Key | None, reason: str) -> None:
        """A row cannot be read."""
        self._notify("cryptostore_unreadable_row", account=self._account, kind=kind, key=key, reason=reason)

    def exported(self, records: int, way: str, destination: str) -> None:
        """So many keys left the database."""
        facts = {"records": records, "way": way, "destination": destination}
        self._notify("cryptostore_keys_exported", account=self._account, owner=self._owner, **facts)

    def imported(self, records: int, way: str, source: str) -> None:
        """So many keys came in from a file, or from the backup on a server."""
        facts = {"records": records, "way": way, "source": source}
        self._notify("cryptostore_keys_imported", account=self._account, owner=self._owner, **facts)

    def secret_exported(self, secret: str, way: str, destination: str) -> None:
        """A secret of the identity left the database."""
        facts = {"secret_name": secret, "way": way, "destination": destination}
        self._notify("cryptostore_secret_exported", account=self._account, owner=self._owner, **facts)

    def pruned(self, deleted: Mapping[str, int]) -> None:
        """So many records of each kind were deleted because they were old."""
        self._notify("cryptostore_pruned", account=self._account, deleted=dict(deleted), owner=self._owner)

    def restored(self) -> None:
        """Nothing that is stored from before a backup was put back encrypts any more."""
        self._notify("cryptostore_account_restored", account=self._account, owner=self._owner)


def described(error: CryptoStoreError) -> dict[str, str]:
    """An error as observers are told of it."""
    return {"error": type(error).__name__, "reason": str(error)}
