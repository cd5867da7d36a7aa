"""The interface below the clients."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from cryptostore import Account, Backend, CryptoStore, InboundGroupSession, Mode, open_backend
from workers.made_keys import DEVICE, PICKLE_KEY, USER
from workers.timing import Timings


def _opened(backend: Backend) -> CryptoStore:
    options: dict[str, Any] = {"mode": Mode.READ}
    if "pickle_key" in inspect.signature(backend.open_store).parameters:
        options["pickle_key"] = PICKLE_KEY
    return backend.open_store(Account(USER, DEVICE), **options)


def scan(database: Mapping[str, str], count: int) -> dict[str, Any]:
    """Go through all sessions."""
    timings = Timings()
    with open_backend(database["url"]) as backend, _opened(backend) as store, timings.all_of("", count):
        seen = sum(1 for _ in store.scan(InboundGroupSession))
    if seen != count:
        raise RuntimeError(f"{seen} of {count} sessions are there")
    return timings.told()
