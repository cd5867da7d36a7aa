"""The database URL and its options: which are ours, and which libpq's."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from cryptostore.errors import ConfigurationError
from cryptostore.plugins.urls import is_host, redact, refuse_unknown

#: Seconds for one connection attempt, where the URL does not say: another host may be up.
_CONNECT_SECONDS: Final = 2

#: The options that do not go to libpq: this backend's.
OWN_OPTIONS: Final = frozenset({"migrate", "pool_size", "schema"})
#: The core's are not among those that are handed on, and are named to users all the same.
_OURS: Final = ", ".join(sorted({*OWN_OPTIONS, "deadline", "owner"}))

#: What may be shown of a URL, of libpq's own options those that say where and how to connect. Not those that are secret
#: or may be, such as `options`, and none that a later libpq may bring.
SHOWN_OPTIONS: Final = OWN_OPTIONS | {
    "application_name",
    "channel_binding",
    "connect_timeout",
    "gssencmode",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "port",
    "require_auth",
    "requirepeer",
    "service",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcertmode",
    "sslcrl",
    "sslcrldir",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
}
_SCHEMA_NAME: Final = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")
_LARGEST_POOL: Final = 1_000


class Migrate(enum.StrEnum):
    """Whether opening brings the tables up to date."""

    AUTO = "auto"
    #: For a role that may only read and write rows; another one migrates.
    NEVER = "never"


@dataclass(frozen=True)
class PostgresOptions:
    """A checked URL. The repr leaves out what is sent to libpq, which may hold a password."""

    schema: str
    migrate: Migrate
    pool_size: int
    #: What libpq is given.
    connection: Mapping[str, Any] = field(repr=False)

    @property
    def place(self) -> str:
        """Which database is meant, for error texts."""
        hosts = str(self.connection.get("host") or self.connection.get("hostaddr") or "the local socket").split(",")
        ports = str(self.connection.get("port") or "5432").split(",")
        # libpq takes one port for all hosts, or one for each.
        ports = ports * len(hosts) if len(ports) == 1 else ports
        names = [f"{host}:{port}" for host, port in zip(hosts, ports, strict=False)]
        return f"{','.join(names)}/{self.connection.get('dbname', '')}"


def parse(url: str, options: Mapping[str, Any]) -> PostgresOptions:
    """Check the URL and the options. Raises ConfigurationError, whose text never holds a password."""
    _refuse_misplaced(url)
    for_libpq = dict(options)
    schema = checked_schema(str(for_libpq.pop("schema", "cryptostore")))
    migrate = _migrate(for_libpq.pop("migrate", Migrate.AUTO))
    pool_size = _pool_size(for_libpq.pop("pool_size", 4))
    return PostgresOptions(schema, migrate, pool_size, _connection(url, for_libpq))


def checked_schema(name: str) -> str:
    """The name of a schema. Raises ConfigurationError for one that is not plain."""
    if not _SCHEMA_NAME.fullmatch(name):
        raise ConfigurationError(
            "the option 'schema' must be a plain lower-case name of a-z, 0-9 and _, at most 63 long, and not one that "
            "begins with pg_, as in schema=bots"
        )
    return name


def _refuse_misplaced(url: str) -> None:
    """Refuse a URL in which part of a password may have become something else, such as a host, a port or an option."""
    authority, *behind_host = re.split("[/?]", url.partition("//")[2], maxsplit=1)
    # libpq takes what is behind the first "@" for the host, and shows it in its errors.
    user, _, hosts = authority.rpartition("@")
    if "#" in url or "@" in user + "".join(behind_host):
        raise ConfigurationError(
            "the database URL holds a '/', '?', '#' or '@' where none may be; in a user's name, a password or an "
            "option write them as %2F, %3F, %23 and %40"
        )
    if not all(map(is_host, hosts.split(","))):
        raise ConfigurationError(
            "the database URL has something else than a number for its port; it looks like "
            "postgresql://user:password@host:5432/database"
        )


def _connection(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What libpq is given: the URL without its query, and the options over it."""
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    refuse_unknown(
        {name: value for name, value in options.items() if name not in known},
        f"{_OURS}, and libpq's connection parameters",
    )
    try:
        from_url = conninfo_to_dict(url.partition("?")[0])
    except (psycopg.Error, ValueError):
        # The driver's text quotes the part that it did not understand, which may be the password.
        raise ConfigurationError(
            f"the database URL {redact(url, SHOWN_OPTIONS)} is not a valid PostgreSQL URL, which looks like "
            "postgresql://user:password@host:5432/database; write special characters in a password as %XX"
        ) from None
    defaults = {"connect_timeout": _CONNECT_SECONDS, "application_name": "matrix-cryptostore"}
    return defaults | from_url | dict(options) | {"client_encoding": "utf8"}


def _migrate(value: Any) -> Migrate:
    try:
        return Migrate(value)
    except ValueError:
        raise ConfigurationError("the option 'migrate' must be 'auto' or 'never'") from None


def _pool_size(value: Any) -> int:
    try:
        size = int(value)
    except (TypeError, ValueError):
        size = 0
    if not 1 <= size <= _LARGEST_POOL:
        raise ConfigurationError(f"the option 'pool_size' must be a number of connections from 1 to {_LARGEST_POOL}")
    return size
