"""The connections to one database, and the promise that no use of one outlasts its time."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Iterator
from typing import Final
from weakref import WeakSet

import psycopg
from psycopg.pq import TransactionStatus

from cryptostore.errors import BackendUnavailable, ConfigurationError, StoreClosed
from cryptostore.logs import logger
from cryptostore.store import interface

from .connecting import Connection, Connector, Policies
from .errors import READ_ONLY, DidNotAnswer, translated
from .options import PostgresOptions
from .watchdog import Watchdog

#: Seconds for which a connection that worked is taken to work still.
_FRESH_SECONDS: Final = 1.0
#: Seconds for the answer to the liveness check.
_CHECK_SECONDS: Final = 2.0
#: Seconds after which a connection that is not needed is closed.
_IDLE_SECONDS: Final = 600.0

#: By place, why calls failed, until one succeeds. Each attempt to open a database is another object.
_reasons: Final[dict[str, str]] = {}

_log: Final = logger(__name__)


class _Call:
    """One use of a connection, while it lasts."""


class Connections:
    """At most `pool_size` connections to one database, each for one call at a time.

    The last one to come back is given out first, so that few are in use, and are seldom asked whether they still work.
    """

    def __init__(self, options: PostgresOptions) -> None:
        self._size: Final = options.pool_size
        self._place: Final = options.place
        self._password: Final = str(options.connection.get("password") or "")
        self._connector: Final = Connector(options)
        self._watchdog: Final = Watchdog()
        self._process: Final = os.getpid()
        self._guard: Final = threading.RLock()
        #: Weakly: an interrupt may end a call before it is taken out.
        self._calls: WeakSet[_Call] = WeakSet()
        #: Not a condition, whose methods are Python's: an interrupt in the middle of one finds the guard released.
        self._waiters: Final[dict[threading.Lock, None]] = {}
        #: In the order in which they came back.
        self._idle: list[Connection] = []
        self._closed = False
        #: Those that are in force for the role.
        self.policies: Policies | None = None

    def open(self, ends: float) -> None:
        """Make the first connection. Raises ConfigurationError for what trying again cannot mend."""
        try:
            self._idle.append(self._connector.connect(ends))
        except BackendUnavailable as error:
            raise self._explained(error) from error.__cause__

    @contextlib.contextmanager
    def use(self, timeout: float) -> Iterator[Connection]:
        """A connection for one call of at most `timeout` seconds, which is idle, or closed, afterwards.

        Raises BackendUnavailable, without an unknown outcome where no connection can be had.
        """
        self._refuse_inherited()
        ends = time.monotonic() + timeout
        call = _Call()
        connection = None
        try:
            connection = self._reserve(call, timeout)
            if connection is None or not self._works(connection, ends):
                connection = self._connect(ends)
            connection.ends, connection.policies = ends, self.policies
            with translated(connection.place, self._password), self._watchdog.guard(connection, ends):
                try:
                    yield connection
                except BaseException as error:
                    _leave_clean(connection, error)
                    self._put_last_if_stuck(connection)
                    if isinstance(error, psycopg.OperationalError) and time.monotonic() >= ends:
                        raise DidNotAnswer(connection.place, timeout) from error
                    raise
            _reasons.pop(self._place, None)
        except BackendUnavailable as error:
            raise self._explained(error) from error.__cause__
        except BaseException as error:
            # An interrupt may have come at any place, and its session may be in the middle of anything.
            if connection is not None and not isinstance(error, Exception):
                connection.close()
            raise
        finally:
            self._give_back(call, connection)

    def _put_last_if_stuck(self, connection: Connection) -> None:
        """Let the next connection be to another host, where there is one, if this one's server let a call down."""
        if connection.is_stuck or time.monotonic() >= connection.ends:
            connection.close()
            self._connector.put_last(connection.host)

    def _explained(self, error: BackendUnavailable) -> BackendUnavailable:
        """What the caller is told. A call whose time was over tells what the one before it was told, too."""
        if not isinstance(error, DidNotAnswer):
            _reasons[self._place] = str(error)
            return error
        reason = _reasons.get(self._place)
        text = f"{error}; before that: {reason}" if reason else str(error)
        return BackendUnavailable(text, outcome_unknown=error.outcome_unknown)

    def count(self) -> interface.Connections:
        """How many there are. Without the lock: this may be called in the middle of anything."""
        return interface.Connections(len(self._calls), len(self._idle), self._size, len(self._waiters))

    def close(self) -> None:
        """Close every connection that is not in use; those in use when they come back."""
        # Over inherited connections, the end of the sessions would be that of the parent's.
        if self._is_inherited():
            return
        with self._guard:
            self._closed = True
        self._drop_idle()
        self._watchdog.stop()

    def _reserve(self, call: _Call, timeout: float) -> Connection | None:
        """Wait until less than all connections are in use. The one that came back last, or None to make one."""
        ends = time.monotonic() + timeout
        while True:
            left = ends - time.monotonic()
            waiter = threading.Lock()
            waiter.acquire()
            try:
                with self._guard:
                    if self._take(call, left):
                        return self._idle.pop() if self._idle else None
                    self._waiters[waiter] = None
                # Outside the guard, and in one call: an interrupt ends it with nothing held.
                waiter.acquire(timeout=left)
            finally:
                self._waiters.pop(waiter, None)

    def _take(self, call: _Call, left: float) -> bool:
        """Whether less than all connections were in use. Raises if `left` seconds are none."""
        if self._closed:
            raise StoreClosed("the PostgreSQL backend was closed; open it again to use it")
        if len(self._calls) < self._size:
            self._calls.add(call)
            # One that was woken twice was woken in another's place.
            if len(self._calls) < self._size:
                self._wake_one()
            return True
        if left <= 0:
            raise BackendUnavailable(
                f"all {self._size} connections to PostgreSQL at {self._place} are in use; raise pool_size in the "
                "URL, or let fewer threads share this backend",
                outcome_unknown=False,
            )
        return False

    def _wake_one(self) -> None:
        """Let the thread that waits longest look. One that gives up gives back as well, and wakes the next."""
        for waiter in list(self._waiters):
            if waiter.locked():
                waiter.release()
                return

    def _works(self, connection: Connection, ends: float) -> bool:
        now = time.monotonic()
        if now - connection.used_at < _FRESH_SECONDS:
            return True
        try:
            with self._watchdog.guard(connection, min(now + _CHECK_SECONDS, ends)):
                connection.execute(b"")
        except psycopg.Error as error:
            _log.debug("an idle connection did not work any more (%s)", type(error).__name__)
            connection.close()
            # Those that came back earlier are older still. To ask each of them would take the call's time.
            self._drop_idle()
            return False
        return True

    def _connect(self, ends: float) -> Connection:
        try:
            return self._connector.connect(ends)
        except ConfigurationError as error:
            # The same login was let in when the database was opened, and may be again.
            raise BackendUnavailable(str(error), outcome_unknown=False) from error

    def _give_back(self, call: _Call, connection: Connection | None) -> None:
        now = time.monotonic()
        with self._guard:
            self._calls.discard(call)
            self._wake_one()
            if connection is not None and not connection.closed:
                connection.used_at = now
                self._idle.append(connection)
            are_expired = bool(self._idle) and self._idle[0].used_at < now - _IDLE_SECONDS
        # What ended one has probably ended the others, too.
        if self._closed or (connection is not None and connection.closed):
            self._drop_idle()
        elif are_expired:
            self._drop_idle(now - _IDLE_SECONDS)

    def _drop_idle(self, unused_since: float = float("inf")) -> None:
        """Close the connections that were not used since then."""
        with self._guard:
            dropped = list(itertools.takewhile(lambda each: each.used_at < unused_since, self._idle))
            del self._idle[: len(dropped)]
        for each in dropped:
            each.close()

    def _is_inherited(self) -> bool:
        return self._process != os.getpid()

    def _refuse_inherited(self) -> None:
        # Both processes would write into the same sockets, and the watchdog stayed with the parent.
        if self._is_inherited():
            raise StoreClosed(
                f"PostgreSQL at {self._place} was opened by process {self._process}, before a fork; fork before the "
                "database is opened, or start processes with the method 'spawn'"
            )


def _leave_clean(connection: Connection, error: BaseException) -> None:
    """End a failed transaction; a connection in any other state is of no more use."""
    try:
        if connection.pgconn.transaction_status == TransactionStatus.INERROR:
            connection.rollback()
    except psycopg.Error as failure:
        _log.debug("a failed transaction could not be rolled back (%s)", type(failure).__name__)
    # The session may be with a standby, or have begun while the server was read-only: another one may be able to write.
    if isinstance(error, psycopg.Error) and error.sqlstate == READ_ONLY:
        connection.is_stuck = True
    if connection.pgconn.transaction_status != TransactionStatus.IDLE:
        connection.close()
