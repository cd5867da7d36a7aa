"""Where a client's settings come from: arguments, the environment, a `.env` file.

What is given as an argument wins over the environment, and the environment over the `.env` file. For the database:
`store`, then `use_postgres` and `pg_config`, then `CRYPTOSTORE_URL`, then `USE_POSTGRES_STORE=true`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypedDict
from urllib.parse import quote, urlencode

from dotenv import dotenv_values

from cryptostore.errors import ConfigurationError
from cryptostore.store.pickle_key_sources import pickle_key_from

#: What `pg_config` may hold beside the parts of the URL; the backend checks the values.
_OPTIONS: Final = frozenset(
    {
        "application_name",
        "connect_timeout",
        "deadline",
        "owner",
        "passfile",
        "pool_size",
        "schema",
        "sslcert",
        "sslkey",
        "sslmode",
        "sslpassword",
        "sslrootcert",
        "target_session_attrs",
    }
)
#: The parts of the URL, the variables that fill those that are not given, and what stands for neither.
_PARTS: Final = {
    "host": ("POSTGRES_HOST", "localhost"),
    "port": ("POSTGRES_PORT", "5432"),
    "database": ("POSTGRES_DB", ""),
    "user": ("POSTGRES_USER", ""),
    "password": ("POSTGRES_PASSWORD", ""),
}
_YES: Final = frozenset({"1", "true", "yes", "on"})
_NO: Final = frozenset({"", "0", "false", "no", "off"})


@dataclass(frozen=True)
class ClientSettings:
    """What a client needs to begin. The repr shows neither the URL, which may hold a password, nor the pickle key."""

    homeserver: str
    user_id: str
    device_id: str | None
    store: str = field(repr=False)
    pickle_key: str = field(repr=False)


class StoreArguments(TypedDict, total=False):
    """The arguments for the database and the pickle key; `client_settings` looks up those that are not given."""

    store: str | None
    pickle_key: str | None
    use_postgres: bool | None
    pg_config: Mapping[str, Any] | None
    env_file: str | os.PathLike[str] | None


def client_settings(
    homeserver: str = "",
    user_id: str = "",
    device_id: str | None = None,
    *,
    store: str | None = None,
    pickle_key: str | None = None,
    use_postgres: bool | None = None,
    pg_config: Mapping[str, Any] | None = None,
    env_file: str | os.PathLike[str] | None = ".env",
) -> ClientSettings:
    """Fill what is not given from `CRYPTOSTORE_*`, `POSTGRES_*` and `MATRIX_*`.

    Raises ConfigurationError for a setting that is missing, given twice, or unknown.
    """
    variables = _variables(env_file)
    return ClientSettings(
        homeserver=homeserver or _required(variables, "MATRIX_HOMESERVER", "the homeserver's URL", "homeserver"),
        user_id=user_id or _required(variables, "MATRIX_USER_ID", "the user's id", "user"),
        device_id=device_id or variables.get("MATRIX_DEVICE_ID") or None,
        store=_store(store, use_postgres, pg_config, variables),
        pickle_key=_pickle_key(pickle_key, variables),
    )


def postgres_url(pg_config: Mapping[str, Any], variables: Mapping[str, str]) -> str:
    """The URL of a PostgreSQL database, its parts from `pg_config` and, where that is silent, from `POSTGRES_*`.

    Raises ConfigurationError for an unknown key, and where there is no database name.
    """
    unknown = sorted(set(pg_config) - set(_PARTS) - _OPTIONS)
    if unknown:
        known = ", ".join(sorted({*_PARTS, *_OPTIONS}))
        raise ConfigurationError(f"unknown key {', '.join(map(repr, unknown))} in pg_config; known are {known}")
    parts = {
        name: str(pg_config.get(name) or variables.get(variable) or default)
        for name, (variable, default) in _PARTS.items()
    }
    if not parts["database"]:
        raise ConfigurationError("no database is named: give pg_config={'database': ...} or set POSTGRES_DB")
    options = {name: str(value) for name, value in pg_config.items() if name in _OPTIONS and value is not None}
    query = f"?{urlencode(options, quote_via=quote)}" if options else ""
    user = f"{_encoded(parts['user'])}:{_encoded(parts['password'])}".rstrip(":")
    at = "@" if user else ""
    return f"postgresql://{user}{at}{_encoded(parts['host'])}:{parts['port']}/{_encoded(parts['database'])}{query}"


def _store(
    store: str | None, use_postgres: bool | None, pg_config: Mapping[str, Any] | None, variables: Mapping[str, str]
) -> str:
    if store and (use_postgres or pg_config):
        raise ConfigurationError("give either store=... or use_postgres=True and pg_config={...}, not both")
    if store:
        return store
    if pg_config and use_postgres is False:
        raise ConfigurationError("pg_config={...} is given, but use_postgres=False forbids it; leave one of them out")
    if use_postgres or pg_config:
        return postgres_url(pg_config or {}, variables)
    if variables.get("CRYPTOSTORE_URL"):
        return variables["CRYPTOSTORE_URL"]
    if use_postgres is None and _flag(variables, "USE_POSTGRES_STORE"):
        return postgres_url({}, variables)
    raise ConfigurationError(
        "no database is named: give store='postgresql://host/database' or use_postgres=True, or set CRYPTOSTORE_URL or "
        "USE_POSTGRES_STORE=true with POSTGRES_HOST, POSTGRES_PORT, POSTGRES_DB, POSTGRES_USER and POSTGRES_PASSWORD"
    )


def _pickle_key(given: str | None, variables: Mapping[str, str]) -> str:
    if given is not None:
        return given
    key = pickle_key_from(variables)
    if not key:
        raise ConfigurationError(
            "there is no pickle key, which encrypts the keys in the database: give pickle_key=..., or set "
            "CRYPTOSTORE_PICKLE_KEY or CRYPTOSTORE_PICKLE_KEY_FILE"
        )
    return key


def _variables(env_file: str | os.PathLike[str] | None) -> dict[str, str]:
    from_file = dotenv_values(env_file) if env_file else {}
    return {name: value for name, value in from_file.items() if value is not None} | dict(os.environ)


def _required(variables: Mapping[str, str], variable: str, what: str, argument: str) -> str:
    value = variables.get(variable)
    if not value:
        raise ConfigurationError(f"{what} is missing: give {argument}=... or set {variable}")
    return value


def _flag(variables: Mapping[str, str], variable: str) -> bool:
    value = variables.get(variable, "").strip().lower()
    if value not in _YES | _NO:
        raise ConfigurationError(f"{variable} must be true or false")
    return value in _YES


def _encoded(text: str) -> str:
    return quote(text, safe="")
