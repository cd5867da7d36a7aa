"""Programs that were written for matrix-nio, whose keys are to be in a database: our classes take the place of nio's.

It concerns the whole process and lasts until its end, so this is for a process that does nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import nio
from nio import AsyncClientConfig
from nio.client.base_client import Client
from nio.store import DefaultStore, MatrixStore, SqliteStore

from cryptostore.errors import ConfigurationError
from cryptostore.logs import logger
from cryptostore.plugins.environment import variables
from cryptostore.store.pickle_key_sources import pickle_key_from
from cryptostore.store.pickle_keys import PUBLIC_PICKLE_KEYS

from .client import ProductionMatrixClient
from .store import NioStore

_log: Final = logger(__name__)


def use_our_store(url: str) -> None:
    """From now on nio's clients keep their keys in the database of `url`, also clients that were made before.

    Opening a store then raises ConfigurationError where the program has a store class of its own, and where neither it
    nor the environment has a pickle key; besides, what NioStore raises. The program's `store_path` stays a folder.
    Raises ConfigurationError for what is no URL.
    """
    ours = NioStore.at(url)
    load_theirs: Callable[[Client], None] = Client.load_store

    def load_store(client: Client) -> None:
        if client.store is None and not isinstance(client, ProductionMatrixClient):
            _warn_of_no_folder(client)
            client.config = _with_our_store(client.config, ours)
        load_theirs(client)

    Client.load_store = load_store  # type: ignore[method-assign]  # whichever name a program knows the client by


def use_our_client(url: str) -> None:
    """From now on `AsyncClient`, imported from nio, is a ProductionMatrixClient on the database of `url`.

    Raises ConfigurationError for what is no URL.
    """
    NioStore.at(url)
    theirs = nio.AsyncClient

    class AsyncClient(ProductionMatrixClient):
        """nio's client, with its own arguments."""

        def __init__(
            self,
            homeserver: str,
            user: str = "",
            device_id: str | None = "",
            store_path: str | None = "",
            config: AsyncClientConfig | None = None,
            ssl: Any = None,
            proxy: str | None = None,
        ) -> None:
            key = _pickle_key((config or AsyncClientConfig()).pickle_key)
            super().__init__(
                homeserver, user, device_id, store=url, pickle_key=key, config=config, ssl=ssl, proxy=proxy
            )
            # Programs make this folder, and look into it.
            self.store_path = store_path

    for module in [each for name, each in sys.modules.items() if name.partition(".")[0] == "nio"]:
        if vars(module).get("AsyncClient") is theirs:
            vars(module)["AsyncClient"] = AsyncClient


def _with_our_store(config: Any, ours: type[NioStore]) -> Any:
    if config.store in (None, ours) or not config.encryption_enabled:
        return config
    _check_replaceable(config.store)
    return replace(config, store=ours, pickle_key=_pickle_key(config.pickle_key))


def _check_replaceable(store: type[MatrixStore]) -> None:
    if store not in (DefaultStore, SqliteStore):
        raise ConfigurationError(
            f"this program keeps its keys in {store.__module__}.{store.__qualname__}, which is neither SqliteStore nor "
            "DefaultStore of nio, so they would not be in the database: give its AsyncClientConfig one of these, or "
            "NioStore.at(url), and start the program without `cryptostore run`"
        )


def _pickle_key(given: str) -> str:
    """The program's own pickle key, unless everybody knows it."""
    if given not in PUBLIC_PICKLE_KEYS:
        return given
    key = pickle_key_from(variables())
    if key is None:
        raise ConfigurationError(
            "this program gives nio's default pickle key, or none, which everybody knows: set CRYPTOSTORE_PICKLE_KEY "
            "or CRYPTOSTORE_PICKLE_KEY_FILE; `cryptostore new-key` makes a key"
        )
    return key


def _warn_of_no_folder(client: Client) -> None:
    if not client.store_path and client.config.encryption_enabled:
        _log.warning("%s has no store_path, so nio encrypts nothing: give it a folder", client.user_id)
