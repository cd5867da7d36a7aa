"""The connection pool, and the promise that no use of it outlasts its time."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool

from cryptostore.errors import BackendUnavailable, ConfigurationError, CryptoStoreError, StoreClosed

from .columns import adapters
from .errors import READ_ONLY, refusal, translated
from .login import state_of_refusal
from .options import PostgresOptions
from .watchdog import Watchdog

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
T = TypeVar("T")

#: Seconds after which the pool begins anew with short pauses: with long ones it sleeps through the server's return.
_RECONNECT_SECONDS: Final = 5.0
#: Seconds for the answer to the liveness check, and to the question why a login was refused.
_CHECK_SECONDS: Final = 2.0
_CLOSE_SECONDS: Final = 2.0
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0

# The pool reports every failed attempt to connect; what matters of that reaches the caller as an error.
_log: Final = logging.getLogger(__name__)


class Connections:
    """Connections to one database for calls with a time to end."""

    def __init__(self, options: PostgresOptions) -> None:
        self._options = options
        self._password = str(options.connection.get("password") or "")
        self._watchdog = Watchdog()
        self._call = threading.local()
        self._process: Final = os.getpid()
        # No named prepared statements: in PgBouncer's transaction mode they belong to another client's server.
        self._arguments = {
            **options.connection,
            "autocommit": True,
            "prepare_threshold": None,
            "context": adapters(),
        }
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            kwargs=self._arguments,
            open=False,
            min_size=options.pool_min_size,
            max_size=options.pool_size,
            check=self._check,
            reconnect_timeout=_RECONNECT_SECONDS,
            timeout=options.common.deadline,
            name="cryptostore",
        )

    def first(self, ends: float) -> Connection:
        """A connection outside the pool, whose error says what is wrong: the pool's only say that time is over.

        Raises ConfigurationError at once for what trying again cannot mend, BackendUnavailable at `ends`.
        """
        pause = _FIRST_PAUSE
        while True:
            try:
                return self._connect(ends)
            except BackendUnavailable:
                if time.monotonic() + pause >= ends:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def open(self, ends: float) -> None:
        """Fill the pool. Raises BackendUnavailable at `ends`."""
        with translated(self._options.place, self._password):
            # Waited for, because a pool that is asked while it fills makes one connection more than is needed.
            self._pool.open(wait=True, timeout=max(0.0, ends - time.monotonic()))

    def once(self, ends: float, work: Callable[[Connection], T]) -> T:
        """Do `work` on a pooled connection, in one attempt that is over at `ends` of the monotonic clock."""
        self._refuse_inherited()
        with translated(self._options.place, self._password):
            self._call.ends = ends
            # Asking anew makes the pool try anew: it gives up after so long, whoever is still waiting.
            connection = self._pool.getconn(timeout=min(_RECONNECT_SECONDS, max(0.0, ends - time.monotonic())))
            try:
                with self.guarded(connection, ends):
                    return work(connection)
            finally:
                self._pool.putconn(connection)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Do `work`, which changes nothing, as often as the deadline allows."""
        return self.repeat(lambda connection, _ends: work(connection))

    def repeat(self, work: Callable[[Connection, float], T]) -> T:
        """Do `work`, which may be done twice, as often as the deadline allows; it is told when its attempt is over."""
        ends = time.monotonic() + self._options.common.deadline
        pause = _FIRST_PAUSE
        while True:
            attempt_ends = self.attempt_ends(ends - time.monotonic())
            try:
                return self.once(attempt_ends, functools.partial(_at, work, attempt_ends))
            except BackendUnavailable:
                if time.monotonic() + pause >= ends:
                    raise
            # Random, so that the clients of a server that came back do not return in one wave.
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def attempt_ends(self, remaining: float) -> float:
        """When to give up one attempt: early enough that a connection that hangs leaves time for another."""
        seconds = min(remaining, max(self._options.common.deadline / 3, remaining / 2))
        return time.monotonic() + max(0.0, seconds)

    @contextlib.contextmanager
    def guarded(self, connection: Connection, ends: float) -> Iterator[None]:
        """Watch over a connection's use, and leave it idle, or closed."""
        with translated(self._options.place, self._password), self._watchdog.guard(connection, ends):
            try:
                yield
            except BaseException as error:
                _leave_clean(connection)
                # The session may be with a standby, or have begun while nobody could write: another one may do better.
                if isinstance(error, psycopg.Error) and error.sqlstate == READ_ONLY:
                    connection.close()
                raise

    def close(self) -> None:
        """Close every connection that is not in use; those in use when they come back."""
        # Over inherited connections, the end of the sessions would be that of the parent's.
        if self._is_inherited():
            return
        self._pool.close(timeout=min(_CLOSE_SECONDS, self._options.common.deadline))
        self._watchdog.stop()

    def _is_inherited(self) -> bool:
        return self._process != os.getpid()

    def _refuse_inherited(self) -> None:
        # Both processes would write into the same sockets, and the threads of the pool stayed with the parent.
        if self._is_inherited():
            raise StoreClosed(
                f"PostgreSQL at {self._options.place} was opened by process {self._process}, before a fork; fork "
                "before the database is opened, or start processes with the method 'spawn'"
            )

    def _check(self, connection: Connection) -> None:
        ends = min(time.monotonic() + _CHECK_SECONDS, getattr(self._call, "ends", float("inf")))
        with self._watchdog.guard(connection, ends):
            ConnectionPool.check_connection(connection)

    def _connect(self, ends: float) -> Connection:
        """Connect in a thread of its own: neither name look-ups nor libpq's least time-out keep to a deadline."""
        attempt = _Attempt(self._arguments, self._refusal)
        attempt.thread.join(max(0.0, ends - time.monotonic()))
        outcome = attempt.take()
        if isinstance(outcome, CryptoStoreError):
            raise outcome
        if outcome is None:
            seconds = self._options.common.deadline
            raise BackendUnavailable(f"PostgreSQL at {self._options.place} did not answer within {seconds:g} s")
        return outcome

    def _refusal(self, error: Exception) -> CryptoStoreError:
        refused = self._meaning_of_refusal(error)
        refused.__cause__ = error
        return refused

    def _meaning_of_refusal(self, error: Exception) -> CryptoStoreError:
        if not isinstance(error, psycopg.Error):
            # Such as the UnicodeError of a host name that is too long; its text may quote what the URL holds.
            return ConfigurationError(
                f"PostgreSQL at {self._options.place} cannot be looked up ({type(error).__name__}); check the URL"
            )
        ask = functools.partial(state_of_refusal, self._options.connection, _CHECK_SECONDS)
        return refusal(error, self._options.place, self._password, ask)


class _Attempt:
    """One attempt to connect; its connection is closed if it comes after nobody waits for it any more."""

    def __init__(self, arguments: dict[str, Any], refusal_of: Callable[[Exception], CryptoStoreError]) -> None:
        self._arguments = arguments
        self._refusal_of = refusal_of
        self._lock = threading.Lock()
        self._outcome: Connection | CryptoStoreError | None = None
        self._given_up = False
        self.thread: Final = threading.Thread(target=self._run, name="cryptostore-connect", daemon=True)
        self.thread.start()

    def take(self) -> Connection | CryptoStoreError | None:
        """What came of it so far; None for nothing, and then nothing is wanted any more."""
        with self._lock:
            self._given_up = self._outcome is None
            return self._outcome

    def _run(self) -> None:
        outcome: Connection | CryptoStoreError
        try:
            outcome = psycopg.connect(**self._arguments)
        except Exception as error:  # noqa: BLE001  # whatever it is, somebody waits for it in another thread
            outcome = self._refusal_of(error)
        with self._lock:
            if not self._given_up:
                self._outcome = outcome
            elif isinstance(outcome, psycopg.Connection):
                outcome.close()


def _at(work: Callable[[Connection, float], T], ends: float, connection: Connection) -> T:
    return work(connection, ends)


def _leave_clean(connection: Connection) -> None:
    """End a failed transaction; a connection in any other state is of no more use."""
    try:
        if connection.pgconn.transaction_status == TransactionStatus.INERROR:
            connection.rollback()
    except psycopg.Error as error:
        _log.debug("a failed transaction could not be rolled back (%s)", type(error).__name__)
    if connection.pgconn.transaction_status != TransactionStatus.IDLE:
        connection.close()
