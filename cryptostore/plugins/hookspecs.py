"""The hooks that plugins implement, declared for pluggy.

Backends live in the entry-point group `cryptostore.backends` and implement `cryptostore_backends`. Observers live in
`cryptostore.observers` and implement any of the others; they are told facts, never secrets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final

import pluggy

from cryptostore.records.record import Account, Key
from cryptostore.store.interface import Connections

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
    """What a module in the group `cryptostore.observers` may implement. A hook takes the arguments that it wants.

    Hooks are called in the thread of the operation, with its context variables, and hold it up: be quick. One that
    raises is reported and its observer dropped; the operation goes on.

    `backend` is the backend's name, `database` the URL as it may be shown, `owner` the name of a process as
    `cryptostore accounts` shows it, `error` the name of the class in `cryptostore.errors`, and `reason` its text. Times
    are in seconds. Ids are as strangers chose them: escape what you show.
    """

    @hookspec
    def cryptostore_event(self, event: str, facts: Mapping[str, object]) -> None:
        """Any of the events below, for who writes them all down: the hook's name without `cryptostore_`, and its
        arguments.
        """

    @hookspec
    def cryptostore_database_opened(
        self, backend: str, database: str, connections: Callable[[], Connections | None]
    ) -> None:
        """A database was opened. `connections` counts its connections at any time, from any thread, and never waits;
        it gives None where the backend has none to count.
        """

    @hookspec
    def cryptostore_database_closed(
        self, backend: str, database: str, connections: Callable[[], Connections | None]
    ) -> None:
        """A database was closed, the one that was opened with an equal `connections`."""

    @hookspec
    def cryptostore_store_opened(
        self,
        account: Account,
        mode: str,
        epoch: int,
        owner: str,
        previous_owner: str,
        has_pickle_key: bool,
        backend: str,
    ) -> None:
        """A store was opened by `owner`, in mode "own" or "read". `previous_owner` had the account before, or has it
        still in mode "read"; it is empty for a new account. Without a pickle key, no record can be read.
        """

    @hookspec
    def cryptostore_open_failed(
        self, account: Account, mode: str, owner: str, error: str, reason: str, backend: str
    ) -> None:
        """A store could not be opened; with a wrong pickle key, `error` is "WrongPickleKey". Nothing was changed."""

    @hookspec
    def cryptostore_batch_applied(
        self, account: Account, records: int, size: int, seconds: float, retries: int, backend: str
    ) -> None:
        """A batch is durable: how many operations, how many bytes of keys and sealed values, how long it took, and how
        many attempts were in vain before.
        """

    @hookspec
    def cryptostore_batch_failed(
        self, account: Account, error: str, reason: str, seconds: float, retries: int, backend: str
    ) -> None:
        """A batch ended in an error, that of each of the next three hooks included."""

    @hookspec
    def cryptostore_fenced(
        self, account: Account, owner: str, since: datetime | None, previous_owner: str, backend: str
    ) -> None:
        """`owner` has taken the account over since `since`, and the store of `previous_owner` found that out: in a
        batch that was refused, or by asking. Called once for a store.
        """

    @hookspec
    def cryptostore_unavailable(self, account: Account, reason: str, backend: str) -> None:
        """A batch found no database inside its deadline. Not called again before `cryptostore_recovered`."""

    @hookspec
    def cryptostore_recovered(self, account: Account, seconds: float, backend: str) -> None:
        """The first batch after `cryptostore_unavailable`, that many seconds later, is durable."""

    @hookspec
    def cryptostore_retried(self, account: Account, reason: str, backend: str) -> None:
        """An attempt to open, read or write found no database, and is made again inside the deadline."""

    @hookspec
    def cryptostore_unreadable_row(self, account: Account, kind: str, key: Key | None, reason: str) -> None:
        """A stored row could not be turned into a record, and was kept; no key where that cannot be read either."""

    @hookspec
    def cryptostore_keys_exported(self, account: Account, records: int, way: str, destination: str, owner: str) -> None:
        """Keys left the database: for an export, a copy or a backup, which `way` names as its command is named. They
        went to `destination`, a file or a database's URL as it may be shown.
        """

    @hookspec
    def cryptostore_secret_exported(
        self, account: Account, secret_name: str, way: str, destination: str, owner: str
    ) -> None:
        """A secret of the account's identity left: the recovery key was shown or written to a file, or one that Matrix
        has a name for was sent to another device of the user that may ask for it, which is the destination then.
        """

    @hookspec
    def cryptostore_keys_imported(self, account: Account, records: int, way: str, source: str, owner: str) -> None:
        """Keys came in from a file, a database or a homeserver's key backup, in the way that is named as its command or
        method is named.
        """

    @hookspec
    def cryptostore_account_moved(self, account: Account, source: str, destination: str, owner: str) -> None:
        """An account was moved to another database: from now on `source` opens it no more."""

    @hookspec
    def cryptostore_account_deleted(self, account: Account, owner: str, backend: str) -> None:
        """An account was deleted with all its records."""

    @hookspec
    def cryptostore_account_restored(self, account: Account, owner: str, backend: str) -> None:
        """An account whose backup was put back was made safe."""

    @hookspec
    def cryptostore_rekeyed(
        self, account: Account, records: int, unreadable: int, wrap_only: bool, owner: str, backend: str
    ) -> None:
        """An account has another pickle key: how many records were sealed again, and how many could not be."""

    @hookspec
    def cryptostore_pruned(self, account: Account, deleted: Mapping[str, int], owner: str) -> None:
        """Records were deleted because they were old or not needed any more: how many of each kind."""

    @hookspec
    def cryptostore_flushed(self, account: Account, records: int, age: float) -> None:
        """A client's changes are durable; the oldest one had waited for `age` seconds."""

    @hookspec
    def cryptostore_flush_failed(self, account: Account, age: float, error: str) -> None:
        """A client's changes could not be made durable, and wait; the oldest one has waited for `age` seconds."""

    @hookspec
    def cryptostore_gap_found(self, account: Account, room_id: str) -> None:
        """The homeserver left events of a room out of its answer; they are fetched."""

    @hookspec
    def cryptostore_gap_filled(self, account: Account, room_id: str, events: int) -> None:
        """All that was left out was fetched, so many events."""

    @hookspec
    def cryptostore_events_missed(self, account: Account, room_id: str, cause: str, count: int) -> None:
        """Events of a room were missed for good; their number is 0 where nobody knows it."""

    @hookspec
    def cryptostore_identity_changed(self, account: Account, identity_of: str, previous: str, present: str) -> None:
        """The user `identity_of` has another cross-signing identity: its public master key, and that of the one before.
        For the account's own user, also the first one, with an empty `previous`.
        """

    @hookspec
    def cryptostore_identity_settled(self, account: Account, state: str, reason: str) -> None:
        """How far the account's own identity has come, each time that this changes: "signed" is as it should be."""
