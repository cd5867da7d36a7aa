"""One attempt to connect, which keeps to a deadline, and what its failure means."""

from __future__ import annotations

import functools
import os
import socket
import threading
import time
from typing import Any, Final

import psycopg

from cryptostore.errors import BackendUnavailable, ConfigurationError, CryptoStoreError

from .errors import refusal
from .login import state_of_refusal
from .options import PostgresOptions

#: Seconds for the question why a login was refused.
_CHECK_SECONDS: Final = 2.0


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection, and what its uses have to know of it. Times are by the monotonic clock."""

    #: When its present use is over.
    ends: float = 0.0
    #: When it was last found to work.
    used_at: float = 0.0
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
        self._options: Final = options
        self._password: Final = str(options.connection.get("password") or "")
        # No named prepared statements: in PgBouncer's transaction mode they belong to another client's server.
        self._arguments: Final[dict[str, Any]] = {
            **options.connection,
            "autocommit": True,
            "prepare_threshold": None,
        }

    def connect(self, ends: float) -> Connection:
        """A new connection. Raises ConfigurationError for what trying again cannot mend, or BackendUnavailable.

        In a thread of its own: neither name look-ups nor libpq's least time-out keep to a deadline.
        """
        started = time.monotonic()
        attempt = _Attempt(self)
        attempt.thread.join(max(0.0, ends - started))
        outcome = attempt.take()
        if isinstance(outcome, CryptoStoreError):
            raise outcome
        if outcome is None:
            raise BackendUnavailable(
                f"PostgreSQL at {self._options.place} did not answer within {ends - started:.3g} s",
                outcome_unknown=False,
            )
        outcome.used_at = time.monotonic()
        return outcome

    def try_once(self) -> Connection | CryptoStoreError:
        """A connection, or what prevented it."""
        try:
            return Connection.connect(**self._arguments)
        except Exception as error:  # noqa: BLE001  # whatever it is, somebody waits for it in another thread
            refused = self._meaning_of(error)
            refused.__cause__ = error
            return refused

    def _meaning_of(self, error: Exception) -> CryptoStoreError:
        if not isinstance(error, psycopg.Error):
            # Such as the UnicodeError of a host name that is too long; its text may quote what the URL holds.
            return ConfigurationError(
                f"PostgreSQL at {self._options.place} cannot be looked up ({type(error).__name__}); check the URL"
            )
        ask = functools.partial(state_of_refusal, self._options.connection, _CHECK_SECONDS)
        refused = refusal(error, self._options.place, self._password, ask)
        if isinstance(refused, BackendUnavailable):
            refused.outcome_unknown = False
        return refused


class _Attempt:
    """One attempt to connect; its connection is closed if it comes too late."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
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
        outcome = self._connector.try_once()
        with self._lock:
            if not self._given_up:
                self._outcome = outcome
            elif isinstance(outcome, Connection):
                outcome.close()
