"""The client that bots and bridges use."""

from __future__ import annotations

from typing import Any, Unpack

from nio import AsyncClientConfig

from cryptostore.nio.configuration import StoreArguments, client_settings

from .gap_client import GapSettings
from .session import Intervals
from .syncing import SyncingClient


class ProductionMatrixClient(SyncingClient):
    """An AsyncClient that can be killed at any moment, started on another host, and read everything it was ever sent.

    `store` is the URL of a database, and `pickle_key` protects what is kept in it. The account is that of `user` and
    `device_id`. Without a device id `login_or_restore` finds or makes it. `use_postgres` and `pg_config` name a
    PostgreSQL database by its parts. What is not given comes from the environment and from `env_file`: see
    `cryptostore.nio.configuration`. What changes outside a sync or a send, such as a verification, is durable after
    `flush_interval` seconds at the latest. A start that gets no usable answer from the homeserver ends after
    `homeserver_deadline` seconds. A process that writes nothing asks the database after a sync whether the account is
    still its own, at most once in `ownership_check_interval` seconds.

    `ssl` and `proxy` are nio's.

    Raises ConfigurationError for settings that are missing, unknown or given twice.
    """

    def __init__(
        self,
        homeserver: str = "",
        user: str = "",
        device_id: str | None = None,
        *,
        config: AsyncClientConfig | None = None,
        flush_interval: float = 1.0,
        ownership_check_interval: float = 10.0,
        homeserver_deadline: float = 30.0,
        gap_limit: int | None = None,
        gap_age: float | None = None,
        ssl: Any = None,
        proxy: str | None = None,
        **given: Unpack[StoreArguments],
    ) -> None:
        settings = client_settings(homeserver, user, device_id, **given)
        super().__init__(
            settings.homeserver,
            settings.user_id,
            settings.device_id,
            settings.store,
            settings.pickle_key,
            config,
            Intervals(flush_interval, ownership_check_interval),
            homeserver_deadline,
            gaps=GapSettings(gap_limit, gap_age),
            ssl=ssl,
            proxy=proxy,
        )
