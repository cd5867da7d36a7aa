"""The interface of a backend: one open database, in which accounts keep values under keys, both of them bytes.

A backend is dumb storage: no caches, no knowledge of Matrix, no retries, one transaction a call. The core does the rest
once for all backends: `Backend` and `CryptoStore` check, encode, seal, number, repeat and observe.
Clauses in square brackets are the contract; the cases of `matrix-cryptostore-contract` cite them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from cryptostore.errors import SchemaTooNew

#: The version of this interface, as (major, minor). A backend names the one it was written for.
INTERFACE_VERSION: Final = (2, 0)

#: The longest key and the longest value, in bytes, that a database is given.
MAX_KEY_BYTES: Final = 1_024
MAX_STORED_BYTES: Final = 4 * 1024 * 1024


class Row(NamedTuple):
    """One value under its key, within an account."""

    key: bytes
    value: bytes


class Range(NamedTuple):
    """All keys from `start` on, and below `end`; with no end, to the last key of the account."""

    start: bytes
    end: bytes | None


class AccountRow(NamedTuple):
    """One account, and its ownership.

    `id` is drawn by the core, at random from 1 to 2^63 - 1, and is in every row of the account. `epoch` and
    `incarnation` identify the present owner. `sequence` is the number of the last committed batch. `owner` names the
    process that took over, and `since` is when, in microseconds since 1970 (UTC). `written_at` is the time of the last
    committed batch, likewise; 0 before the first one. All integers are below 2^63, and the epoch is 1 or more. The user
    id and the device id have up to 255 bytes in UTF-8, and the owner's name up to 255 characters.
    """

    id: int
    user_id: str
    device_id: str
    epoch: int
    incarnation: int
    sequence: int
    owner: str
    since: int
    written_at: int = 0


class TakeOver(NamedTuple):
    """A new owner: its incarnation, its name, the time, and the id for an account that is new."""

    new_id: int
    incarnation: int
    owner: str
    since: int

    def row_after(self, found: AccountRow | None, user_id: str, device_id: str) -> AccountRow:
        """The row of the account after this take-over: of the one that was found, or of a new one with this name."""
        row = found or AccountRow(self.new_id, user_id, device_id, 0, 0, 0, "", 0)
        return row._replace(epoch=row.epoch + 1, incarnation=self.incarnation, owner=self.owner, since=self.since)


class Batch(NamedTuple):
    """One batch of the owner with this epoch and incarnation. `number` is one more than that of the last batch.

    `written_at` is when the owner made it, in microseconds since 1970 (UTC), by its own clock.

    `puts` and `deletes` are in the order of their keys, and no key is in both of them or twice in one.
    """

    epoch: int
    incarnation: int
    number: int
    puts: Sequence[Row]
    deletes: Sequence[bytes]
    written_at: int = 0

    def follows(self, row: AccountRow) -> bool:
        """Whether this is the next batch of the owner that the account's row names."""
        return (row.epoch, row.incarnation, row.sequence) == (self.epoch, self.incarnation, self.number - 1)

    def row_after(self, found: AccountRow) -> AccountRow:
        """The row of the account after this batch."""
        return found._replace(sequence=self.number, written_at=self.written_at)


@dataclass(frozen=True, slots=True)
class Health:
    """The state of a database: its name and version, and whether it accepts writes.

    `not_durable` says how the database is set up so that a power failure may take what it acknowledged; it is empty
    where nothing of that kind is known. A backend also logs a warning of it when it opens the database.
    """

    server: str
    writable: bool
    not_durable: str = ""


@dataclass(frozen=True, slots=True)
class Schema:
    """The version of the tables, and the oldest program schema that may still use them."""

    version: int
    min_compatible: int

    def refuse_if_newer(self, known: int, place: str, distribution: str) -> None:
        """Raise SchemaTooNew where a program that knows schema `known` must not touch the database at `place`."""
        if self.min_compatible > known:
            raise SchemaTooNew(
                f"{place} has format version {self.version}, which programs before {self.min_compatible} must not "
                f"touch; this one knows {known}: upgrade {distribution}. Nothing was changed"
            )


@dataclass(frozen=True, slots=True)
class Connections:
    """The connections of this process to a database: how many calls use one, how many are idle, how many there may be,
    and how many calls wait for one.
    """

    used: int
    idle: int
    most: int
    waiting: int


class Database(ABC):
    """One open database with any number of accounts. Owns the connections.

    Every method may be called from any thread, also at once. [DATABASE-1]
    Each call is one attempt and takes at most `timeout` seconds. Then, or where the server cannot be reached, it raises
    BackendUnavailable, and the core decides whether to try again. [DATABASE-2]
    Keys are compared byte by byte. Values have 0 to 4 MiB, keys 1 to 1,024 bytes. [DATABASE-3]
    No password, key or value appears in a log line, an exception, a repr or a process list. [DATABASE-4]
    Where the URL demands encryption, nothing is sent in plain, or to a server whose certificate is not trusted:
    ConfigurationError is raised. [DATABASE-5]
    A call that has returned holds no transaction, lock or snapshot. [DATABASE-6]
    """

    @abstractmethod
    def take_over(self, user_id: str, device_id: str, claim: TakeOver, timeout: float) -> AccountRow:
        """Make the claimant the owner of an account, and return the account's row.

        A new account gets `claim.new_id`, epoch 1, and sequence and `written_at` 0. One that is there keeps its id,
        sequence and `written_at`, and its epoch is raised by one. [TAKE-1]
        Durable and seen by every other connection on return. [TAKE-2]
        It waits for no lease, and ends a batch of an older owner that holds a lock while its client is silent. [TAKE-3]
        """

    @abstractmethod
    def find(self, user_id: str, device_id: str, timeout: float) -> AccountRow | None:
        """The account's row, or None. Changes nothing. [FIND-1]"""

    @abstractmethod
    def accounts(self, timeout: float) -> Sequence[AccountRow]:
        """The rows of all accounts, in any order. [ACCOUNTS-1]

        A damaged row may come as it is, so that it hides no other: the core reports it and leaves it out. Where half of
        an account is missing, epoch 0 stands for its ownership, or empty ids for its name.
        """

    @abstractmethod
    def delete(self, account_id: int, timeout: float) -> None:
        """Delete the account with all its rows, and nothing else; deleting nothing is no error. [DELETE-1]

        Atomicity: all or nothing; no batch of a running owner leaves rows behind. [DELETE-2]
        """

    @abstractmethod
    def get(self, account_id: int, keys: Sequence[bytes], timeout: float) -> Sequence[Row]:
        """The rows under these keys that exist, in any order. Keys are given in order and once. [ROWS-1]

        One snapshot, however many keys: no batch is seen by half. One round trip, or a few for very many keys. [ROWS-2]
        """

    @abstractmethod
    def ranges(self, account_id: int, ranges: Sequence[Range], timeout: float) -> Sequence[Row]:
        """All rows in these ranges, in key order. Ranges are given in order and do not overlap. [RANGES-1]

        One snapshot, however many ranges. One round trip, or a few for very many ranges. [RANGES-2]
        """

    @abstractmethod
    def page(self, account_id: int, within: Range, size: int, timeout: float) -> Sequence[Row]:
        """The first `size` rows of a range, in key order. [PAGE-1]

        One snapshot. Nothing is held between pages: no connection, lock or snapshot. [PAGE-2]
        """

    @abstractmethod
    def commit(self, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        """Commit a batch if it is the next one of the present owner, and return the account's row as it is then.

        Where the stored epoch and incarnation are the batch's, and the stored sequence is `batch.number - 1`: stores
        every put, whether the key is there or not, deletes every key of `deletes`, where it is there, and stores
        `batch.number` as the sequence, and `batch.written_at`; all in one transaction that has the account's row
        locked. [COMMIT-1]
        Else changes nothing. [COMMIT-2] Returns the row, which tells the core what happened, or None where there is no
        such account. [COMMIT-3] What is returned is durable, also where it was committed by an earlier call. [COMMIT-4]
        Raises StorageFull where there is no room, or a plain CryptoStoreError for what the database refuses: both, as
        every error but BackendUnavailable, say that the batch was rolled back for certain. [COMMIT-5]
        BackendUnavailable leaves the outcome open, unless it is raised with `outcome_unknown=False`, which says that
        nothing of the batch was sent. [COMMIT-6]
        Atomicity: readers and restarts see the batch whole or not at all. [COMMIT-7]
        """

    @abstractmethod
    def health(self, timeout: float) -> Health:
        """Ask the database whether it is there, writable, and set up to be durable. [HEALTH-1]"""

    @abstractmethod
    def schema(self, timeout: float) -> Schema:
        """The schema that the open database has. [SCHEMA-1]

        A backend opens no database whose `min_compatible` is above the version that it knows: it raises SchemaTooNew
        before anything is touched. [SCHEMA-2] First starts at the same time migrate once. [SCHEMA-3] A database that
        an older program left behind is brought up to date as it is opened, and keeps every row. [SCHEMA-4]
        """

    def connections(self) -> Connections | None:
        """Count the connections, for observers; None where there is nothing to count. Optional. Asks nobody, and waits
        for nothing.
        """
        return None

    @abstractmethod
    def close(self) -> None:
        """Close every connection. The core calls it once, and nothing else afterwards. [CLOSE-1]"""
