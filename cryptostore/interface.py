"""The waist: what a backend implements and what every client library stands on.

Backends are dumb storage: no caches, no knowledge of Matrix, one transaction a batch. Clauses in square brackets are
the contract; the cases of `matrix-cryptostore-contract` cite them. Everything is synchronous and thread-safe:
matrix-nio calls its store from the event loop, and a thread makes any of it awaitable.
"""

from __future__ import annotations

import enum
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Final, Self, TypeVar, final

from .changes import Changes
from .errors import BackendUnavailable, FencedOut, ReadOnlyStore
from .lifecycle import OpenFlag
from .observers import notify
from .records import Account, InboundGroupSession, Key, MessageIndex, Record
from .sequence import Batch, BatchSequence

R = TypeVar("R", bound=Record)

#: The version of this interface, as (major, minor). A backend names the one it was written for.
INTERFACE_VERSION: Final = (1, 0)

#: Seconds after which a call that cannot reach the database gives up, unless the caller says otherwise.
DEFAULT_DEADLINE: Final = 15.0


class Mode(enum.Enum):
    """How a store is opened."""

    #: The account's one writer: opening takes the account over from whoever had it.
    OWN = "own"
    #: Look only: takes nothing over, waits for nobody, cannot write.
    READ = "read"


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who owns an account: its epoch, the number of its last committed batch, and who took it over, and when."""

    epoch: int
    sequence: int
    owner: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Health:
    """What a backend could find out about its database: its name and version, and whether it accepts writes."""

    server: str
    writable: bool


@dataclass(frozen=True, slots=True)
class Schema:
    """The version of the tables, and the oldest program schema that may still use them."""

    version: int
    min_compatible: int


class CryptoStore(ABC):
    """One account in one database.

    Concurrency: every method may be called from any thread, also at once. [STORE-1]
    A closed store, or one of a closed backend, raises StoreClosed from every method but `close`. [STORE-2]
    No method waits longer than the deadline before it raises BackendUnavailable. [STORE-3]

    A backend's subclass calls `CryptoStore.__init__` with the account, the mode, the ownership that `open_store` found
    or stored, the deadline in seconds, and the backend's own `cryptostore.lifecycle.OpenFlag`. From then on it has
    `account`, `mode`, `ownership`, and the store's own flag `_is_open`: each of its methods, and each page of a scan,
    begins with `self._is_open.check()`, which raises StoreClosed. Other names with an underscore are not for backends.
    """

    def __init__(
        self, account: Account, mode: Mode, ownership: Ownership, deadline: float, backend_is_open: OpenFlag
    ) -> None:
        self.account: Final = account
        self.mode: Final = mode
        #: As it was when this store was opened; only the sequence moves on while this store owns the account.
        self.ownership: Final = ownership
        self._is_open: Final = OpenFlag(f"the store of {account}", within=backend_is_open)
        self._sequence: Final = BatchSequence(ownership.sequence, deadline, self.commit)
        self._was_unavailable = False
        notify("cryptostore_store_opened", account=account, mode=mode.value, epoch=ownership.epoch)

    @abstractmethod
    def get(self, kind: type[R], keys: Iterable[Key]) -> dict[Key, R]:
        """Look many records up by their whole keys.

        Returns the records that exist, by key; a key without a record is not in the answer. [GET-1]
        Keys compare byte by byte: no case folding, trimming or normalisation. [GET-2] Any number of keys is one round
        trip, or none for no keys. [GET-3]
        Raises InvalidRecord for a key that is not whole or not valid. [GET-4] A row that cannot be read is reported and
        left out; of a kind with one record an account it raises UnreadableRecord, since "absent" would invite a new
        identity over the old. [GET-5]
        Atomicity: the answer is one snapshot: no batch is seen by half. [GET-6]
        """

    @abstractmethod
    def select(self, kind: type[R], prefixes: Iterable[Key]) -> dict[Key, list[R]]:
        """Look records up by the beginnings of their keys; `()` selects all of the kind.

        Returns a list for each prefix, empty where nothing matches, in key order: texts in the order of their UTF-8
        bytes, integers as numbers. [SELECT-1] A prefix is made of whole key fields: `("!a",)` does not match the room
        `"!ab"`, and no character has a meaning of its own. [SELECT-2] Any number of prefixes is one round trip, or none
        for no prefixes. [SELECT-3]
        Raises InvalidRecord for what is no prefix of the kind's key. [SELECT-4] Unreadable rows as in `get`. [SELECT-5]
        Atomicity: the answer is one snapshot. [SELECT-6]
        """

    @abstractmethod
    def scan(self, kind: type[R], prefix: Key = ()) -> Iterator[R]:
        """Go through all records under a prefix in key order, in bounded memory.

        Returns an iterator that fetches page by page; each record that exists throughout comes exactly once. [SCAN-1]
        A scan holds no connection, lock or snapshot between pages, and may be abandoned at any point. [SCAN-2]
        Raises as `select` does, at the call for a bad prefix and from the iterator for the rest. [SCAN-3]
        Atomicity: each page is a snapshot of its own. [SCAN-4]
        Concurrency: an iterator serves one thread; the store may be written while it is open. [SCAN-5]
        """

    @abstractmethod
    def commit(self, batch: Batch, timeout: float) -> None:
        """Attempt once, for at most `timeout` seconds, to commit a numbered batch. `apply` is what callers want.

        Commits where the stored epoch is ours and the stored sequence is `batch.number - 1`, and then stores
        `batch.number`; both inside the transaction, with the account's row locked. [COMMIT-1]
        Where the stored sequence is `batch.number` already, does nothing and returns: it was committed. [COMMIT-2]
        Raises FencedOut for any other epoch or sequence, naming the present owner, [COMMIT-3]
        AccountNotFound for an account that was deleted (and perhaps made anew), [COMMIT-4]
        StorageFull where there is no room, or a plain CryptoStoreError for a value or a statement that the database
        refuses: as every error but BackendUnavailable, it says that the batch was rolled back for certain, [COMMIT-5]
        BackendUnavailable wherever the outcome is open, or the server could not be reached. [COMMIT-6]
        Atomicity: readers and restarts see the batch whole or not at all. [COMMIT-7]
        A put inserts, or replaces every field of the record with that key; a delete of nothing is no error. [COMMIT-8]
        Durable on return: the batch survives SIGKILL of this process and whatever the backend's declared
        capabilities name. [COMMIT-9]
        """

    def close(self) -> None:
        """Give back what the store holds. Closing twice is no error. A pending batch is not sent again. [CLOSE-1]

        A backend with resources of its own for each store extends this.
        """
        self._is_open.close()

    @final
    def apply(self, changes: Changes) -> None:
        """Make a batch durable, exactly once. An empty batch only settles what is pending, and costs no round trip
        where nothing is. [APPLY-1]

        Raises ReadOnlyStore in READ mode, StoreClosed after `close`, [APPLY-2]
        FencedOut when another owner has the account; it names who took over and when, [APPLY-3]
        StorageFull when there is no room; nothing of the batch is stored, and it may be applied again later, [APPLY-4]
        BackendUnavailable after the deadline. The caller still has the batch; applying it again settles it. If it was
        sent at all it is pending: its outcome is open, and the next `apply` sends it again, unchanged, before
        its own. [APPLY-5]
        Atomicity: all or nothing, in one transaction. [APPLY-6]
        Concurrency: batches of one store commit one after the other, in the order of their calls. [APPLY-7]
        Cancellation: an interrupt in the middle leaves the batch pending. [APPLY-8]
        """
        if self.mode is not Mode.OWN:
            raise ReadOnlyStore(f"{self.account} was opened with Mode.READ; open it with Mode.OWN to write")
        self._is_open.check()
        started = time.monotonic()
        try:
            self._sequence.apply(changes)
        except FencedOut as error:
            notify("cryptostore_fenced", account=self.account, owner=error.owner, since=error.since)
            raise
        except BackendUnavailable:
            self._was_unavailable = True
            notify("cryptostore_unavailable", account=self.account)
            raise
        if self._was_unavailable:
            self._was_unavailable = False
            notify("cryptostore_recovered", account=self.account)
        notify(
            "cryptostore_batch_applied",
            account=self.account,
            records=len(changes),
            size=changes.size,
            seconds=time.monotonic() - started,
        )

    @final
    def session_deletion(self, session: InboundGroupSession) -> Changes:
        """The batch that deletes a Megolm session together with its message indices, for the owner to apply."""
        prefix = (session.session_id, session.sender_key)
        indices = self.select(MessageIndex, [prefix])[prefix]
        return Changes(deletes=[(type(session), session.key), *((MessageIndex, index.key) for index in indices)])

    @final
    def __enter__(self) -> Self:
        return self

    @final
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Backend(ABC):
    """One open database with any number of accounts. Owns the connections.

    Every method may be called from any thread. [BACKEND-1] After `close`, every method but `close` raises
    StoreClosed. [BACKEND-2] No method waits longer than the deadline. [BACKEND-3] No password, key or token appears in
    a log line, an exception, a repr or a process list. [BACKEND-4] Where the URL demands encryption, nothing is sent
    in plain, or to a server whose certificate is not trusted: ConfigurationError is raised. [BACKEND-5]
    """

    @abstractmethod
    def open_store(self, account: Account, mode: Mode = Mode.OWN) -> CryptoStore:
        """Open one account.

        OWN creates the account if need be, raises its epoch and commits that before anything is read, so that every
        older owner is fenced from then on. [OPEN-1] There is no lease to wait for: the newest opener wins at
        once. [OPEN-2] READ changes nothing at all. [OPEN-3]
        Raises AccountNotFound in READ mode for an account that is not there, [OPEN-4] BackendUnavailable after the
        deadline; opening again is always safe. [OPEN-5]
        """

    @abstractmethod
    def accounts(self) -> Mapping[Account, Ownership]:
        """Every account in the database, in the order of user id and device id, with who owns it. [ACCOUNTS-1]"""

    @abstractmethod
    def delete_account(self, account: Account) -> None:
        """Delete an account with all that belongs to it, and nothing else. [DELETE-1]

        Raises AccountNotFound. [DELETE-2] Atomicity: all or nothing. [DELETE-3] Later batches of a running owner raise
        AccountNotFound, even after the account was made anew. [DELETE-4]
        """

    @abstractmethod
    def health(self) -> Health:
        """Ask the database whether it is there and writable. Raises BackendUnavailable. [HEALTH-1]"""

    @abstractmethod
    def schema(self) -> Schema:
        """The schema that the open database has. [SCHEMA-1]

        A backend opens no database whose `min_compatible` is above the version that it knows: it raises SchemaTooNew
        before anything is touched. [SCHEMA-2] First starts at the same time migrate once. [SCHEMA-3] A database that
        an older program left behind is brought up to date as it is opened, and keeps every record. [SCHEMA-4]
        """

    @abstractmethod
    def close(self) -> None:
        """Close every store and connection. Closing twice is no error. [CLOSE-2]"""

    @final
    def __enter__(self) -> Self:
        return self

    @final
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
