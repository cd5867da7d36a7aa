"""Programs that were written for matrix-nio, whose keys are to be in a database: our classes take the place of nio's.

It concerns the whole process and lasts until its end, so this is for a process that does nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
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
from .client.store import ProductionStore
from .store import NioStore

_log: Final = logger(__name__)


def use_our_store(url: str) -> None:
    """From now on nio's clients keep their keys in the database of `url`, also clients that were made before.

    So do the SqliteStore and the DefaultStore that the program opens itself.
    Opening a store then raises ConfigurationError where the program has a store class of its own, and where neither it
    nor the environment has a pickle key; besides, what NioStore raises. The program's `store_path` stays a folder.
    Raises ConfigurationError for what is no URL.
    """
    _replace_stores(url, _key_giver())
    load_theirs: Callable[[Client], None] = Client.load_store

    def load_store(client: Client) -> None:
        if client.store is None:
            _warn_of_no_folder(client)
        load_theirs(client)

    Client.load_store = load_store  # type: ignore[method-assign]  # whichever name a program knows the client by


def use_our_client(url: str) -> None:
    """From now on `AsyncClient`, imported from nio, is a ProductionMatrixClient on the database of `url`.

    A store that the program opens itself is on that database, too, as after `use_our_store`.
    Raises ConfigurationError for what is no URL.
    """
    pickle_key = _key_giver()
    _replace_stores(url, pickle_key)
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
            key = pickle_key((config or AsyncClientConfig()).pickle_key)
            super().__init__(
                homeserver, user, device_id, store=url, pickle_key=key, config=config, ssl=ssl, proxy=proxy
            )
            # Programs make this folder, and look into it.
            self.store_path = store_path

    for module in [each for name, each in sys.modules.items() if name.partition(".")[0] == "nio"]:
        if vars(module).get("AsyncClient") is theirs:
            vars(module)["AsyncClient"] = AsyncClient


def _replace_stores(url: str, key: Callable[[str], str]) -> None:
    ours = NioStore.at(url)

    def open_ours(
        user_id: str, device_id: str, store_path: str, pickle_key: str = "", database_name: str = ""
    ) -> NioStore:
        return ours(user_id, device_id, store_path, key(pickle_key), database_name)

    def new(cls: type[MatrixStore], *values: Any, **named: Any) -> MatrixStore:
        if issubclass(cls, (ours, ProductionStore)):
            return object.__new__(cls)
        _check_replaceable(cls)
        # Python initializes only what is an instance of the class that was called, and this is not.
        return open_ours(*values, **named)

    # Programs have the classes themselves, by whatever name.
    MatrixStore.__new__ = new  # type: ignore[assignment,method-assign]


def _check_replaceable(store: type[MatrixStore]) -> None:
    if store not in (DefaultStore, SqliteStore):
        raise ConfigurationError(
            f"this program keeps its keys in {store.__module__}.{store.__qualname__}, which is neither SqliteStore nor "
            "DefaultStore of nio, so they would not be in the database: give its AsyncClientConfig one of these, or "
            "NioStore.at(url), and start the program without `cryptostore run`"
        )


def _key_giver() -> Callable[[str], str]:
    """What gives the program's own pickle key, unless everybody knows it, and then ours."""

    # A command that hands it out may ask a person, so not for each client again.
    @cache
    def ours() -> str:
        key = pickle_key_from(variables())
        if key is None:
            raise ConfigurationError(
                "this program gives nio's default pickle key, or none, which everybody knows: set "
                "CRYPTOSTORE_PICKLE_KEY, or its _FILE, _COMMAND or _KEYRING; `cryptostore new-key` makes a key"
            )
        return key

    return lambda given: ours() if given in PUBLIC_PICKLE_KEYS else given


def _warn_of_no_folder(client: Client) -> None:
    if not client.store_path and client.config.encryption_enabled:
        _log.warning("%s has no store_path, so nio encrypts nothing: give it a folder", client.user_id)
