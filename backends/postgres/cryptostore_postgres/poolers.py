"""Whether a pooler such as PgBouncer stands before the server, and what it gives a client.

No pooler says so. But each makes up the process id that a client is told at its login, where the server itself can be
asked for its own.
"""

from __future__ import annotations

import enum
from typing import Final

from cryptostore import CryptoStoreError, Finding, Level

from .connecting import Connection
from .connections import Connections
from .options import PostgresOptions
from .pipeline import Statement, run

_PROCESS: Final = Statement(b"SELECT pg_catalog.pg_backend_pid()")
_SECONDS: Final = 2.0


class Pooling(enum.Enum):
    """What is between a client and the server."""

    NONE = enum.auto()
    #: A session is a client's until that ends.
    SESSION = enum.auto()
    #: Each transaction may get another session.
    TRANSACTION = enum.auto()
    #: A pooler, and no second session could be had to tell its mode.
    UNKNOWN = enum.auto()

    @classmethod
    def read(cls, connection: Connection, options: PostgresOptions) -> Pooling:
        """Ask over this connection and, if there is a pooler, over another one as well."""
        first = _process(connection)
        if first == connection.info.backend_pid:
            return cls.NONE
        others = Connections(options)
        try:
            # Within the time of its own: a pooler may let a client wait for ever.
            with others.use(_SECONDS) as second:
                processes = [_process(each) for each in (second, connection, second)]
        except CryptoStoreError:
            return cls.UNKNOWN
        finally:
            others.close()
        # Two clients share a session, or one client has got another.
        is_shared = processes[0] == first or processes[0] != processes[2] or processes[1] != first
        return cls.TRANSACTION if is_shared else cls.SESSION


def look_at_pooler(pooling: Pooling) -> Finding:
    """What to say of it."""
    return _SAID[pooling]


_SAID: Final = {
    Pooling.NONE: Finding("pooler", Level.OK, "none: the connection is the server's own"),
    Pooling.TRANSACTION: Finding(
        "pooler",
        Level.NOTE,
        "there is one, in transaction mode, which works",
        "PgBouncer tries a server again 15 s after a failure, as long as a call may take: with server_login_retry = 1 "
        "in its configuration, clients go on sooner after the server was away",
    ),
    Pooling.SESSION: Finding(
        "pooler",
        Level.NOTE,
        "there is one, in session mode: each connection of a client keeps a session",
        "give it a default_pool_size of at least pool_size for each client, or pool_mode = transaction",
    ),
    Pooling.UNKNOWN: Finding(
        "pooler",
        Level.WARNING,
        "there is one, which gave no second session at once",
        "raise its default_pool_size or max_client_conn, or set pool_mode = transaction",
    ),
}


def _process(connection: Connection) -> int:
    [[(process,)]] = run(connection, _PROCESS)
    return int(process)
