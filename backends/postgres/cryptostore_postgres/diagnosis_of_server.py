"""What `cryptostore doctor` is told of a PostgreSQL server: its settings, and how many connections it has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from cryptostore import Finding, Level

from .connecting import Connection
from .errors import READ_ONLY_REMEDY
from .pipeline import Statement, run

# Everybody may ask this. A role that logs in may be set to act as another one: its own are the limit and the sessions.
# A limit of -1 is none. The sum counts sessions of every role.
_SERVER: Final = Statement(
    b"""
    SELECT pg_catalog.current_setting('server_version'),
        pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'on', pg_catalog.pg_is_in_recovery(),
        pg_catalog.current_setting('fsync'), pg_catalog.current_setting('full_page_writes'),
        pg_catalog.current_setting('synchronous_commit'),
        pg_catalog.current_setting('max_connections')::pg_catalog.int4,
        pg_catalog.current_setting('superuser_reserved_connections')::pg_catalog.int4 OPERATOR(pg_catalog.+)
            coalesce(pg_catalog.current_setting('reserved_connections', true), '0')::pg_catalog.int4,
        (SELECT pg_catalog.sum(numbackends)::pg_catalog.int4 FROM pg_catalog.pg_stat_database),
        (SELECT pg_catalog.count(*)::pg_catalog.int4 FROM pg_catalog.pg_stat_activity
            WHERE usename OPERATOR(pg_catalog.=) session_user),
        here.datconnlimit, login.rolconnlimit, current_user::pg_catalog.text, role.rolsuper,
        pg_catalog.pg_get_userbyid(here.datdba)::pg_catalog.text,
        pg_catalog.has_database_privilege(here.oid, 'CREATE')
    FROM pg_catalog.pg_database AS here
    JOIN pg_catalog.pg_roles AS role ON role.rolname OPERATOR(pg_catalog.=) current_user
    JOIN pg_catalog.pg_roles AS login ON login.rolname OPERATOR(pg_catalog.=) session_user
    WHERE here.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()"""
)


class Server(NamedTuple):
    """What a server says of itself, the database and the role."""

    version: str
    is_read_only: bool
    is_standby: bool
    fsync: str
    full_page_writes: str
    synchronous_commit: str
    max_connections: int
    reserved: int
    in_use: int
    #: Of these, by this role.
    in_use_by_role: int
    limit_of_database: int
    limit_of_role: int
    role: str
    is_superuser: bool
    database_owner: str
    may_create_schemas: bool

    @classmethod
    def read(cls, connection: Connection) -> Server:
        """Ask the server, in one round trip."""
        [[row]] = run(connection, _SERVER)
        return cls._make(row)

    @property
    def limit(self) -> int:
        """How many connections the role may have if nobody else has any."""
        limits = [self.max_connections - self.reserved, self.limit_of_database, self.limit_of_role]
        return min(limit for limit in limits if limit >= 0)

    def look_at_connections(self, accounts: int | None, pool_size: int, *, is_pooled: bool) -> Finding:
        """Whether all clients' connections fit."""
        seen = f"{self.in_use} of {self.max_connections} in use, {self.reserved} reserved"
        if self.limit < self.max_connections - self.reserved:
            seen += f"; this role may have {self.limit}, and has {self.in_use_by_role}"
        if is_pooled:
            return Finding("connections", Level.OK, f"{seen}; the pooler shares them out")
        needed = pool_size * (accounts or 1)
        clients = "a client" if accounts is None else f"{accounts or 1} account{'s' * (accounts > 1)}"
        seen += f"; with pool_size {pool_size}, {clients} may need {needed}"
        if needed > self.limit:
            remedy = (
                f"raise max_connections on the server, or the CONNECTION LIMIT of role or database, beyond {needed}; "
                "or lower pool_size in the URLs, or put PgBouncer in between"
            )
            return Finding("connections", Level.WARNING, seen, remedy)
        return Finding("connections", Level.OK, seen)


def look_at_server(server: Server, place: str) -> Iterator[Finding]:
    """What to say of the server itself."""
    yield _writable(server, place)
    yield from _durability(server)


def _writable(server: Server, place: str) -> Finding:
    seen = f"PostgreSQL {server.version} at {place}"
    if server.is_standby or server.is_read_only:
        why = "is a standby" if server.is_standby else "takes no writes"
        return Finding(
            "server",
            Level.PROBLEM,
            f"{seen} {why}",
            READ_ONLY_REMEDY,
        )
    return Finding("server", Level.OK, f"{seen} answers and takes writes")


def _durability(server: Server) -> Iterator[Finding]:
    settings = {"fsync": server.fsync, "full_page_writes": server.full_page_writes}
    off = [name for name, value in settings.items() if value == "off"]
    if off:
        yield Finding(
            "durability",
            Level.WARNING,
            f"{' and '.join(f'{name} = off' for name in off)}: a power failure may take acknowledged batches, or the "
            "whole database",
            "let a superuser run",
            (*[f"ALTER SYSTEM SET {name} = on;" for name in off], "SELECT pg_reload_conf();"),
        )
        return
    seen = f"fsync and full_page_writes are on, synchronous_commit = {server.synchronous_commit}"
    if server.synchronous_commit in ("on", "remote_apply"):
        yield Finding("durability", Level.OK, seen)
    else:
        yield Finding("durability", Level.NOTE, seen, "nothing to do: each batch sets it on for itself")
