"""The hooks that plugins implement, declared for pluggy.

Backends live in the entry-point group `cryptostore.backends` and implement `cryptostore_backends`. Observers live in
`cryptostore.observers` and implement any of the others; they are told facts, never secrets.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

import pluggy

from cryptostore.records.record import Account, Key

from .plugin import BackendPlugin

PROJECT: Final = "cryptostore"

hookspec: Final = pluggy.HookspecMarker(PROJECT)

#: Marks a plugin's implementation of a hook.
hookimpl: Final = pluggy.HookimplMarker(PROJECT)


class BackendHooks:
    """What a module in the group `cryptostore.backends` implements."""

    @hookspec
    def cryptostore_backends(self) -> Iterable[BackendPlugin]:
        """The backends that this module offers, one of them named like its entry point."""
        raise NotImplementedError


class ObserverHooks:
    """What a module in the group `cryptostore.observers` may implement.

    Hooks are called in the thread of the operation and hold it up: be quick. One that raises is reported and its
    observer dropped; the operation goes on.
    """

    @hookspec
    def cryptostore_store_opened(self, account: Account, mode: str, epoch: int) -> None:
        """A store was opened, in mode "own" or "read"."""

    @hookspec
    def cryptostore_batch_applied(self, account: Account, records: int, size: int, seconds: float) -> None:
        """A batch is durable: how many operations, how many bytes of keys and values, how long it took."""

    @hookspec
    def cryptostore_fenced(self, account: Account, owner: str, since: datetime | None) -> None:
        """A batch was refused because a newer owner has the account."""

    @hookspec
    def cryptostore_unavailable(self, account: Account) -> None:
        """A batch found no database inside its deadline."""

    @hookspec
    def cryptostore_recovered(self, account: Account) -> None:
        """The first batch after `cryptostore_unavailable` is durable."""

    @hookspec
    def cryptostore_unreadable_row(self, account: Account, kind: str, key: Key | None, reason: str) -> None:
        """A stored row could not be turned into a record, and was kept; no key where that cannot be read either."""

    @hookspec
    def cryptostore_keys_exported(self, account: Account, records: int) -> None:
        """Keys left the database for an export or a copy."""
