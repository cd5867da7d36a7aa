"""One attempt to connect, which keeps to a deadline, and what its failure means."""

from __future__ import annotations

import functools
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import psycopg

from cryptostore.errors import BackendUnavailable, ConfigurationError, CryptoStoreError

from .errors import DidNotAnswer, refusal
from .hosts import Hosts
from .login import state_of_refusal
from .options import PostgresOptions

#: Seconds for the question why a login was refused.
_CHECK_SECONDS: Final = 2.0


class Policies(NamedTuple):
    """Row security as it was found, to be told from what may be made of it later."""

    #: The numbers of the tables, as the server writes an array.
    tables: str
    fingerprint: str


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection, and what its uses have to know of it. Times are by the monotonic clock."""

    #: Which of the URL's hosts it is to.
    host: PostgresOptions
    #: The same for error texts, worked out once.
    place: str
    #: When its present use is over.
    ends: float = 0.0
    #: When it was last found to work.
    used_at: float = 0.0
    #: The policies by which its role sees its own accounts alone, where there are any.
    policies: Policies | None = None
    #: Whether its server cannot do the work, though another host of the URL may.
    is_stuck: bool = False
    _hold: socket.socket | None = None

    @property
    def hold(self) -> socket.socket:
        """The connection's socket, under a descriptor of our own.

        The driver may close its own at any time, and its number may be used again at once.
        """
        if self._hold is None:
            self._hold = socket.socket(fileno=os.dup(self.fileno()))
        return self._hold

    def close(self) -> None:
        super().close()
        self._let_go()

    def __del__(self, *warn: Any) -> None:
        super().__del__(*warn)
        # One that the server ended may be dropped without having been closed.
        self._let_go()

    def _let_go(self) -> None:
        if self._hold is not None:
            self._hold.close()


class Connector:
    """Makes connections to one database."""

    def __init__(self, options: PostgresOptions) -> None:
        self._hosts: Final = Hosts(options)
        self._password: Final = str(options.connection.get("password") or "")

    def connect(self, ends: float) -> Connection:
        """A new connection, to the first host that gives one.

        Raises ConfigurationError where every host refused for what trying again cannot mend, else BackendUnavailable.
        """
        refused: list[CryptoStoreError] = []
        hosts = self._hosts.in_order()
        for number, host in enumerate(hosts):
            now = time.monotonic()
            # One that is silent leaves time for the others.
            outcome = self._attempt(host, now + (ends - now) / (len(hosts) - number))
            if isinstance(outcome, Connection):
                return outcome
            if isinstance(outcome, DidNotAnswer):
                self._hosts.put_last(host)
            refused.append(outcome)
        raise _all_of(refused)

    def put_last(self, host: PostgresOptions) -> None:
        """From now on, try every other host before this one."""
        self._hosts.put_last(host)

    def _attempt(self, host: PostgresOptions, ends: float) -> Connection | CryptoStoreError:
        """In a thread of its own: neither name look-ups nor libpq's least time-out keep to a deadline."""
        started = time.monotonic()
        attempt = _Attempt(functools.partial(self._try, host))
        attempt.thread.join(max(0.0, ends - started))
        outcome = attempt.take()
        if outcome is None:
            return DidNotAnswer(host.place, ends - started, outcome_unknown=False)
        return outcome

    def _try(self, host: PostgresOptions) -> Connection | CryptoStoreError:
        """A connection, or what prevented it."""
        started = time.monotonic()
        try:
            connection = Connection.connect(**arguments(host))
        except psycopg.errors.ConnectionTimeout:
            return DidNotAnswer(host.place, time.monotonic() - started, outcome_unknown=False)
        except Exception as error:  # noqa: BLE001  # whatever it is, somebody waits for it in another thread
            refused = self._meaning_of(host, error)
            refused.__cause__ = error
            return refused
        connection.host, connection.place = host, host.place
        connection.used_at = time.monotonic()
        return connection

    def _meaning_of(self, host: PostgresOptions, error: Exception) -> CryptoStoreError:
        if not isinstance(error, psycopg.Error):
            # Such as the UnicodeError of a host name that is too long; its text may quote what the URL holds.
            return ConfigurationError(
                f"PostgreSQL at {host.place} cannot be looked up ({type(error).__name__}); check the URL"
            )
        ask = functools.partial(state_of_refusal, host.connection, _CHECK_SECONDS)
        refused = refusal(error, host.place, self._password, ask)
        if isinstance(refused, BackendUnavailable):
            refused.outcome_unknown = False
        return refused


def arguments(host: PostgresOptions) -> dict[str, Any]:
    """What the driver is given to connect to one host."""
    # No named prepared statements: in PgBouncer's transaction mode they belong to another client's server.
    return {**host.connection, "autocommit": True, "prepare_threshold": None}


def _all_of(refused: Sequence[CryptoStoreError]) -> CryptoStoreError:
    """What the refusals of all hosts mean: only where each is final, all of them are."""
    if len(refused) == 1:
        return refused[0]
    told = "; ".join(map(str, refused))
    if all(isinstance(each, DidNotAnswer) for each in refused):
        refused[-1].args = (told,)
        return refused[-1]
    if all(isinstance(each, ConfigurationError) for each in refused):
        error: CryptoStoreError = ConfigurationError(told)
    else:
        error = BackendUnavailable(told, outcome_unknown=False)
    error.__cause__ = refused[-1]
    return error


class _Attempt:
    """One attempt to connect; its connection is closed if it comes too late."""

    def __init__(self, connect: Callable[[], Connection | CryptoStoreError]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._outcome: Connection | CryptoStoreError | None = None
        self._given_up = False
        self.thread: Final = threading.Thread(target=self._run, name="cryptostore-connect", daemon=True)
        self.thread.start()

    def take(self) -> Connection | CryptoStoreError | None:
        """What came of it so far; None for nothing, and then it is given up."""
        with self._lock:
            self._given_up = self._outcome is None
            return self._outcome

    def _run(self) -> None:
        outcome = self._connect()
        with self._lock:
            if not self._given_up:
                self._outcome = outcome
            elif isinstance(outcome, Connection):
                outcome.close()
