"""What a backend's author tells the suite: how to open, restart, break and look into the database under test."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from cryptostore import Account, Backend, Capability, Support, load_backend, open_backend
from cryptostore.plugins.urls import scheme_of

if TYPE_CHECKING:
    from .proxy import Proxy


class Ability(enum.StrEnum):
    """Something that a harness can do. A case that needs one that is missing is reported as not verified."""

    #: The database outlives every handle on it, within this process.
    REOPEN = "reopen"
    #: Another process on this machine opens the same database by `Harness.url` while no one else has it open, and may
    #: be killed.
    OTHER_PROCESS = "other process"
    #: Several processes on this machine, this one among them, have the database open at once.
    PROCESSES_AT_ONCE = "processes at once"
    #: `raw_storage` reads everything that is stored.
    RAW_STORAGE = "raw storage"
    #: `claim_newer_schema` makes the database look as if a newer program had migrated it.
    NEWER_SCHEMA = "newer schema"
    #: `place_golden` puts a database there that the program of an older schema, or of this one, left behind.
    OLDER_SCHEMA = "older schema"
    #: `full_disk` takes the database's room away.
    FULL_DISK = "full disk"
    #: `read_only` makes the database refuse writes, as a standby or a read-only file does.
    READ_ONLY = "read only"
    #: `cut_connections` resets every connection; the server lives on.
    CUT_CONNECTIONS = "cut connections"
    #: `silent_network` swallows all bytes in both directions without closing anything.
    SILENT_NETWORK = "silent network"
    #: `proxy` is the suite's own proxy, which every connection by `url` goes through.
    PROXY = "proxy"
    #: `end_sessions` has the server end every session, as its administrator does.
    END_SESSIONS = "end sessions"
    #: `frozen_server` stops the server's processes (SIGSTOP).
    FROZEN_SERVER = "frozen server"
    #: `stop_server` and `start_server`.
    STOP_SERVER = "stop server"
    #: `kill_server` (SIGKILL); `start_server` brings it back on the same data.
    KILL_SERVER = "kill server"
    #: `no_free_connections` uses up every connection that the server grants.
    CONNECTION_LIMIT = "connection limit"
    #: `locked_account` holds the lock that a commit and a take-over wait for.
    ACCOUNT_LOCK = "account lock"
    #: `open_transactions` counts the backend's transactions that have not ended.
    OPEN_TRANSACTIONS = "open transactions"
    #: `standby_away` takes the standby away that every commit waits for.
    STANDBY_AWAY = "standby away"
    #: `undurable` has the server acknowledge what is not on its disk.
    UNDURABLE = "undurable"
    #: `encrypted` makes the server demand TLS.
    TLS = "tls"


@dataclass(frozen=True)
class Encrypted:
    """The test's database on a server that takes encrypted connections only: four URLs, and who is connected."""

    #: Demands encryption, and a certificate of the authority that signed the server's.
    trusting: str
    #: The same with another authority, which did not sign it.
    distrusting: str
    #: The first one, with another name of the server, which its certificate does not have.
    misnamed: str
    #: Without encryption.
    plain: str
    #: For each connection that a backend has now, whether the server says that it is encrypted.
    connections: Callable[[], list[bool]]


class Harness(ABC):
    """One empty database for one test, and what can be done to it.

    Only `url` and `close` are required. Every other method belongs to an `Ability`; a harness overrides those
    that it lists in `abilities`.
    """

    #: A short name for reports, such as "sqlite".
    name: ClassVar[str]
    #: What this harness can do.
    abilities: ClassVar[frozenset[Ability]] = frozenset()

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL of this test's own database, good for any process if OTHER_PROCESS is offered.

        It leads through whatever the fault methods act on, such as a proxy.
        """

    def open(self, **options: Any) -> Backend:
        """A new handle on the database, with nothing shared but the storage. The test closes it."""
        return open_backend(self.url, **options)

    def raw_storage(self) -> bytes:
        """Everything that is stored, as bytes: files, or a dump with every column in plain."""
        self._missing(Ability.RAW_STORAGE)

    def claim_newer_schema(self) -> None:
        """Store a version and a `min_compatible` above what the backend knows."""
        self._missing(Ability.NEWER_SCHEMA)

    def place_golden(self, version: int) -> None:
        """Put what `golden.fill` wrote with the program of this schema, kept ever since, in place of what is there.

        No handle is open. Every version is asked for, from 1 to the one that the backend knows.
        """
        self._missing(Ability.OLDER_SCHEMA)

    def full_disk(self) -> AbstractContextManager[None]:
        """No room for another megabyte while the context is open; room again afterwards."""
        self._missing(Ability.FULL_DISK)

    def read_only(self) -> AbstractContextManager[None]:
        """Writes are refused while the context is open."""
        self._missing(Ability.READ_ONLY)

    def cut_connections(self) -> int:
        """Reset every open connection, with whatever was in flight. Returns how many there were."""
        self._missing(Ability.CUT_CONNECTIONS)

    def silent_network(self) -> AbstractContextManager[None]:
        """Swallow all bytes while the context is open; afterwards new connections work."""
        self._missing(Ability.SILENT_NETWORK)

    @property
    def proxy(self) -> Proxy:
        """The proxy between every connection by `url` and the server."""
        self._missing(Ability.PROXY)

    def end_sessions(self) -> None:
        """End every session of the backend at the server, which tells the clients so."""
        self._missing(Ability.END_SESSIONS)

    def frozen_server(self) -> AbstractContextManager[None]:
        """Freeze the server while the context is open."""
        self._missing(Ability.FROZEN_SERVER)

    def stop_server(self) -> None:
        """Stop the server in good order."""
        self._missing(Ability.STOP_SERVER)

    def kill_server(self) -> None:
        """SIGKILL the server."""
        self._missing(Ability.KILL_SERVER)

    def start_server(self) -> None:
        """Start the stopped or killed server on the same data, and wait until it accepts connections."""
        self._missing(Ability.STOP_SERVER)

    def no_free_connections(self) -> AbstractContextManager[None]:
        """Use up the server's connections while the context is open."""
        self._missing(Ability.CONNECTION_LIMIT)

    def locked_account(self, account: Account) -> AbstractContextManager[Callable[[], int]]:
        """While the context is open, a session of the harness's own holds the lock on the account's row.

        It gives a function that says how many sessions of the backend wait for a lock.
        """
        self._missing(Ability.ACCOUNT_LOCK)

    def open_transactions(self) -> int:
        """How many transactions of the backend have not ended; at least 1 if there are some.

        A batch was committed right before the call that is looked at.
        """
        self._missing(Ability.OPEN_TRANSACTIONS)

    def standby_away(self) -> AbstractContextManager[None]:
        """While the context is open, no commit is durable: it waits for a standby that does not answer."""
        self._missing(Ability.STANDBY_AWAY)

    def undurable(self) -> AbstractContextManager[None]:
        """While the context is open, the server is set not to wait for its disk."""
        self._missing(Ability.UNDURABLE)

    def encrypted(self) -> AbstractContextManager[Encrypted]:
        """While the context is open, the server refuses connections without TLS; afterwards it knows none."""
        self._missing(Ability.TLS)

    @abstractmethod
    def close(self) -> None:
        """Remove the database, and undo whatever is still broken. `managed` calls it."""

    def _missing(self, ability: Ability) -> NoReturn:
        raise NotImplementedError(f"the harness {self.name!r} does not offer {ability!r}")


def managed(harness: Harness) -> Iterator[Harness]:
    """Yield the harness and close it afterwards: the body of a `harness` fixture."""
    try:
        yield harness
    finally:
        harness.close()


# What a backend declares is not the harness's to say: the report reads it from the plugin, and so do the cases.
def claims(harness: Harness, capability: Capability) -> bool:
    """Whether the backend says that it has a capability, in full or from some version of its database on."""
    return _support(harness, capability) in (Support.FULL, Support.VERSIONED)


def lacks(harness: Harness, capability: Capability) -> bool:
    """Whether the backend says that it has not; one of which it says nothing is neither claimed nor lacking."""
    return _support(harness, capability) in (Support.UNSUPPORTED, Support.NOT_IMPLEMENTED)


def _support(harness: Harness, capability: Capability) -> Support:
    return load_backend(scheme_of(harness.url)).claim(capability).support
