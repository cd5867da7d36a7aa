"""Where a client's settings come from: arguments, the environment, a `.env` file.

What is given as an argument wins over the environment, and the environment over the `.env` file. For the database:
`store`, then `use_postgres` and `pg_config`, then `CRYPTOSTORE_URL`, then `USE_POSTGRES_STORE=true`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from cryptostore.errors import ConfigurationError
from cryptostore.nio.pruning import Pruning
from cryptostore.nio.trust.policies import Policies, policy
from cryptostore.plugins.environment import ENV_FILE, database_url, postgres_url, variables
from cryptostore.plugins.observers import load_observers
from cryptostore.plugins.urls import scheme_of
from cryptostore.store.pickle_key_sources import pickle_key_from, secret_from


@dataclass(frozen=True)
class ClientSettings:
    """What a client needs to begin. The repr shows neither the URL, which may hold a password, nor a key."""

    homeserver: str
    user_id: str
    device_id: str | None
    store: str = field(repr=False)
    pickle_key: str = field(repr=False)
    policies: Policies
    #: A recovery key or passphrase of the account's secret storage.
    recovery_key: str | None = field(repr=False, default=None)
    cross_signing: bool = True
    prune: Pruning | None = None


class StoreArguments(TypedDict, total=False):
    """The arguments for the database, the pickle key and the identity; `client_settings` looks up what is not given."""

    store: str | None
    pickle_key: str | None
    recovery_key: str | None
    cross_signing: bool
    use_postgres: bool | None
    pg_config: Mapping[str, Any] | None
    env_file: str | os.PathLike[str] | None
    room_keys: str
    accept: str
    prune: Pruning | None


def client_settings(
    homeserver: str = "",
    user_id: str = "",
    device_id: str | None = None,
    *,
    store: str | None = None,
    pickle_key: str | None = None,
    recovery_key: str | None = None,
    cross_signing: bool = True,
    use_postgres: bool | None = None,
    pg_config: Mapping[str, Any] | None = None,
    env_file: str | os.PathLike[str] | None = ENV_FILE,
    room_keys: str = Policies().room_keys,
    accept: str = Policies().accept,
    prune: Pruning | None = None,
) -> ClientSettings:
    """Fill what is not given from `CRYPTOSTORE_*`, `POSTGRES_*` and `MATRIX_*`.

    Raises ConfigurationError for a setting that is missing, given twice, or of the wrong form; what `variables` raises.
    """
    found = variables(env_file)
    load_observers(found)
    return ClientSettings(
        homeserver=homeserver or _required(found, "MATRIX_HOMESERVER", "the homeserver's URL", "homeserver"),
        user_id=user_id or _required(found, "MATRIX_USER_ID", "the user's id", "user"),
        device_id=device_id or found.get("MATRIX_DEVICE_ID") or None,
        store=_store(store, use_postgres, pg_config, found),
        pickle_key=_pickle_key(pickle_key, found),
        recovery_key=recovery_key or secret_from(found, "CRYPTOSTORE_RECOVERY_KEY", "the recovery key") or None,
        cross_signing=cross_signing,
        policies=Policies(policy(room_keys, "room_keys"), policy(accept, "accept")),
        prune=_checked(prune),
    )


def _checked(prune: Pruning | None) -> Pruning | None:
    if prune is not None and not isinstance(prune, Pruning):
        raise ConfigurationError("prune must be a cryptostore.nio.Pruning, such as Pruning(unused_for=timedelta(90))")
    return prune


def _store(
    store: str | None, use_postgres: bool | None, pg_config: Mapping[str, Any] | None, variables: Mapping[str, str]
) -> str:
    if store and (use_postgres or pg_config):
        raise ConfigurationError("give either store=... or use_postgres=True and pg_config={...}, not both")
    if store:
        scheme_of(store)
        return store
    if pg_config and use_postgres is False:
        raise ConfigurationError("pg_config={...} is given, but use_postgres=False forbids it; leave one of them out")
    if use_postgres or pg_config:
        return postgres_url(pg_config or {}, variables)
    url = database_url(variables, use_postgres=use_postgres)
    if url:
        return url
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
            "CRYPTOSTORE_PICKLE_KEY, or its _FILE, _COMMAND or _KEYRING"
        )
    return key


def _required(variables: Mapping[str, str], variable: str, what: str, argument: str) -> str:
    value = variables.get(variable)
    if not value:
        raise ConfigurationError(f"{what} is missing: give {argument}=... or set {variable}")
    return value
