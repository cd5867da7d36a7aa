"""The entry point: what this backend is called, how it is opened, and what it can do."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote_to_bytes, urlsplit

from cryptostore import (
    FULL,
    BackendPlugin,
    Capability,
    Claim,
    ConfigurationError,
    Support,
    hookimpl,
)
from cryptostore.urls import CommonOptions, options_of, refuse_unknown

from .backend import RocksDBBackend

#: The version of the interface that this backend was written for; not the one that happens to be installed.
_INTERFACE: Final = (1, 0)

_CAPABILITIES: Final = {
    Capability.SURVIVES_PROCESS_KILL: FULL,
    Capability.SURVIVES_POWER_LOSS: Claim(Support.FULL, "on a disk that keeps what it was told to flush"),
    Capability.SURVIVES_SERVER_RESTART: Claim(Support.UNSUPPORTED, "there is no server"),
    Capability.SEVERAL_PROCESSES: Claim(Support.UNSUPPORTED, "RocksDB locks its folder for one process at a time"),
    Capability.FENCING: Claim(Support.FULL, "between the owners of one process, and from one process to the next"),
    Capability.SNAPSHOT_READS: FULL,
    Capability.BOUNDED_SCAN: FULL,
    Capability.SECURE_DELETE: Claim(
        Support.UNSUPPORTED, "RocksDB's files keep what was deleted until they are rewritten"
    ),
    Capability.TLS: Claim(Support.UNSUPPORTED, "there is no network"),
}


def open_rocksdb(url: str, /, **options: Any) -> RocksDBBackend:
    """Open `rocksdb:///relative/folder` or `rocksdb:////absolute/folder`; a missing folder is created in its parent.

    Options: `deadline` and `owner`. Raises ConfigurationError, SchemaError, BackendUnavailable, StorageFull.
    """
    remaining = options_of(url, options)
    common = CommonOptions.take_from(remaining)
    refuse_unknown(remaining, "deadline, owner")
    return RocksDBBackend(path_of(url), common)


def path_of(url: str) -> Path:
    """The real path of the folder that `url` names. Raises ConfigurationError."""
    parts = urlsplit(url)
    name = os.fsdecode(unquote_to_bytes(parts.path[1:]))
    has_three_slashes = url.partition(":")[2].startswith("///")
    if not has_three_slashes or parts.fragment or not name or "\0" in name:
        raise ConfigurationError(
            "a RocksDB URL names a folder, with three slashes before a relative path (rocksdb:///keys) and four before "
            "an absolute one (rocksdb:////var/lib/bot/keys); '#' is written %23 there, and '?' %3F"
        )
    # Without links: two names of one folder must lead to one open database.
    return Path(name).resolve()


@hookimpl
def cryptostore_backends() -> Iterable[BackendPlugin]:
    """The RocksDB backend."""
    return [BackendPlugin("rocksdb", _INTERFACE, open_rocksdb, _CAPABILITIES)]
