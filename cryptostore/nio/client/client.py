"""The client that bots and bridges use."""

from __future__ import annotations

from typing import Any

from nio import AsyncClientConfig

from .sharing import SharingClient
from .syncing import SyncingClient
from .uploading import UploadingClient


class ProductionMatrixClient(SyncingClient, SharingClient, UploadingClient):
    """An AsyncClient that can be killed at any moment, started on another host, and read everything it was ever sent.

    `store` is the URL of a database and `pickle_key` what encrypts the keys in it; the account in it is that of `user`
    and `device_id`. Without a device id `login_or_restore` finds or makes it. What changes outside a sync or a send,
    such as a verification, is durable after `flush_interval` seconds at the latest.

    Raises ConfigurationError for nio's default pickle key, for an empty one, and where there is no URL.
    """

    def __init__(
        self,
        homeserver: str,
        user: str,
        device_id: str | None = None,
        *,
        store: str,
        pickle_key: str,
        config: AsyncClientConfig | None = None,
        flush_interval: float = 1.0,
        **connection: Any,
    ) -> None:
        super().__init__(homeserver, user, device_id, store, pickle_key, config, flush_interval, **connection)
