"""The one place where the driver's errors become the project's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import psycopg

from cryptostore.errors import (
    BackendUnavailable,
    ConfigurationError,
    CryptoStoreError,
    SchemaError,
    StorageFull,
)

#: The SQLSTATE of a server that takes no writes: a standby, after a fail-over.
READ_ONLY: Final = "25006"
READ_ONLY_REMEDY: Final = (
    "connect to the primary (target_session_attrs=read-write), or let the role write "
    "(default_transaction_read_only=off)"
)

_DISK_FULL: Final = "53100"
_TOO_MANY_CONNECTIONS: Final = "53300"
_DENIED: Final = "42501"
#: Where the server finds that a policy would hide rows; its text may be in any language.
_POLICY_CHECK: Final = "check_enable_rls"
#: Where it finds that a row is one that a policy hides, or would be.
_HIDDEN_ROW: Final = "ExecWithCheckOptions"

_SCHEMA: Final = frozenset(
    {
        "42P01",  # undefined_table
        "42703",  # undefined_column
        "42883",  # undefined_function
        "3F000",  # invalid_schema_name
        "42P10",  # invalid_column_reference: no key for ON CONFLICT
    }
)
_CREDENTIALS: Final = frozenset({"28000", "28P01"})
_TRANSIENT: Final = frozenset(
    {
        "25P03",  # idle_in_transaction_session_timeout
        "25P04",  # transaction_timeout
        "55P03",  # lock_not_available
        "55006",  # object_in_use
        "55000",  # a database that accepts no connections at the moment
    }
)
# Connection, transaction rollback, resources, operator intervention, system.
_TRANSIENT_CLASSES: Final = frozenset({"08", "40", "53", "57", "58"})

_NOT_LET_IN: Final = (
    "allow this host, user and database in the server's pg_hba.conf or, if it lets in encrypted connections only, put "
    "sslmode=verify-full into the URL"
)

# A refused connection carries no SQLSTATE, only libpq's text, or the server's if it speaks English.
_REFUSALS: Final[tuple[tuple[str, str], ...]] = (
    ("password authentication failed", "check user and password"),
    ("no password supplied", "put the password into the URL, or set PGPASSWORD or a password file"),
    ("authentication failed", "check the user, and the server's pg_hba.conf"),
    ("no such user", "check the user, and the pooler's user list"),
    ("not permitted to log in", "ALTER ROLE … LOGIN, or use another user"),
    ("pg_hba.conf", _NOT_LET_IN),
    ("permission denied for database", "GRANT CONNECT ON DATABASE … TO …"),
    ("no such database", "check the database's name, and the pooler's database list"),
    ("does not support ssl", "enable TLS on the server, or choose another sslmode in the URL"),
    ("certificate", "check sslrootcert, the server's certificate and sslmode"),
    ("ssl error", "check sslmode, and the TLS settings of the server"),
    ("bad value for ", "check the parameters in the database URL"),
    ("invalid ", "check the parameters in the database URL"),
)

#: What a server says of itself, or a pooler of what is behind it, and the remedy.
_AWAY: Final[tuple[tuple[str, str], ...]] = (
    (
        "server_login_retry",
        "the pooler's own login at the server fails, and its log says why; it tries again by itself",
    ),
    ("not currently accepting connections", "ALTER DATABASE … ALLOW_CONNECTIONS true"),
    ("lock timeout", "another session has locked what this needs; pg_locks shows which"),
    ("query_wait_timeout", "all of the pooler's sessions are in use; raise its default_pool_size, or end idle ones"),
    ("max_client_conn", "raise max_client_conn of the pooler, or lower pool_size in the URLs of its clients"),
)

_REMEDIES: Final[Mapping[str, str]] = {
    "28000": f"check the user; {_NOT_LET_IN}",
    "28P01": "check user and password",
    "3D000": "create the database with createdb, or check its name in the URL",
    "42501": "GRANT CONNECT ON DATABASE … TO …",
    "42704": "check the parameters in the database URL",
    "22023": "check the parameters in the database URL",
    "0A000": "check the parameters in the database URL",
}


class DidNotAnswer(BackendUnavailable):
    """The time of a call was over, which says nothing of the reason."""

    def __init__(self, place: str, seconds: float, *, outcome_unknown: bool = True) -> None:
        message = (
            f"PostgreSQL at {place} did not answer within {seconds:.3g} s; check that the server runs, that the "
            "network reaches it, and in pg_locks that no other session is in the way"
        )
        super().__init__(message, outcome_unknown=outcome_unknown)


@contextlib.contextmanager
def translated(place: str, password: str = "") -> Iterator[None]:
    """Turn the driver's errors into the project's. `place` says which database; `password` is kept out of the text."""
    try:
        yield
    except psycopg.Error as error:
        # A detail may quote the row that was refused, which would show in the traceback of the cause.
        raise _meaning(error, place, password) from (None if error.diag.message_detail else error)


def refusal(error: psycopg.Error, place: str, password: str, state_of: Callable[[], str | None]) -> CryptoStoreError:
    """What an error of a first connection means: ConfigurationError where trying again is of no use.

    `state_of` asks the server for the SQLSTATE, which costs another login: only for a text that is not known.
    """
    text = _text(error, password)
    lower = text.lower()
    if "does not exist" in lower and "role" in lower:
        return ConfigurationError(f"PostgreSQL at {place} refused the user: {text}; create the role, or check the URL")
    if "does not exist" in lower and "database" in lower:
        return ConfigurationError(f"PostgreSQL at {place}: {text}; create it with createdb, or check the URL")
    for sign, remedy in _REFUSALS:
        if sign in lower:
            return ConfigurationError(f"PostgreSQL at {place} refused the connection: {text}; {remedy}")
    state = state_of() or "unknown"
    if state in _REMEDIES:
        return ConfigurationError(f"PostgreSQL at {place} refused the connection: {text}; {_REMEDIES[state]}")
    if state == _TOO_MANY_CONNECTIONS:
        return BackendUnavailable(
            f"PostgreSQL at {place} has no free connection: {text}; raise max_connections on the server or the role's "
            "CONNECTION LIMIT, or lower pool_size in the URLs of its clients"
        )
    remedy = _remedy_of(text) or "check that the server runs, and host and port in the URL"
    return BackendUnavailable(f"PostgreSQL at {place} cannot be reached: {text}; {remedy}")


def _meaning(error: psycopg.Error, place: str, password: str) -> CryptoStoreError:
    state = error.sqlstate
    at = f"PostgreSQL at {place}"
    if state == _DISK_FULL:
        return StorageFull(f"{at} has no room left; free disk space on the server, then apply the batch again")
    if state in _SCHEMA:
        return SchemaError(
            f"{at} lacks a table, a column or a key of the store ({state}): was it dropped, or is a restore not "
            "complete? Then restore a backup: opening the database again may begin with empty tables"
        )
    if state == _DENIED and error.diag.source_function == _POLICY_CHECK:
        return ConfigurationError(
            f"{at}: {_primary(error)}, and hidden rows would count as missing; let the table's owner run ALTER TABLE … "
            "DISABLE ROW LEVEL SECURITY, or a superuser ALTER ROLE … BYPASSRLS"
        )
    if state == _DENIED:
        return ConfigurationError(f"{at}: {_primary(error)}; GRANT the right to the role, or use another user")
    if state in _CREDENTIALS:
        return ConfigurationError(f"{at} refused the user ({state}); check user and password")
    if state == READ_ONLY:
        return BackendUnavailable(f"{at} is read-only: {_primary(error)}; {READ_ONLY_REMEDY}")
    if _is_transient(error, state):
        text = _text(error, password)
        remedy = _remedy_of(text)
        return BackendUnavailable(f"{at} did not do the work: {text}{f'; {remedy}' if remedy else ''}")
    # The server's text may quote what was stored, so only its code is shown.
    return CryptoStoreError(f"{at} refused a statement: {type(error).__name__}, SQLSTATE {state}")


def is_hidden_row(error: psycopg.Error) -> bool:
    """Whether a row was to be written that belongs to another role, or would."""
    return error.sqlstate == _DENIED and error.diag.source_function == _HIDDEN_ROW


def _remedy_of(text: str) -> str:
    return next((remedy for sign, remedy in _AWAY if sign in text), "")


def _is_transient(error: psycopg.Error, state: str | None) -> bool:
    if state is None:
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return state in _TRANSIENT or state[:2] in _TRANSIENT_CLASSES


def _primary(error: psycopg.Error) -> str:
    return error.diag.message_primary or type(error).__name__


def _text(error: psycopg.Error, password: str) -> str:
    # The whole text of a server's error may quote data; its first line names what happened.
    text = " ".join((error.diag.message_primary or str(error)).split()) or type(error).__name__
    return text.replace(password, "***") if password else text
