"""The entry point: what this backend is called, how it is opened, and what it can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from cryptostore import FULL, BackendPlugin, Capability, Claim, ConfigurationError, Support, hookimpl
from cryptostore.plugins.urls import path_of, refuse_unknown

from .database import RocksDBDatabase
from .schema import require

#: The version of the interface that this backend was written for; not the one that happens to be installed.
_INTERFACE: Final = (2, 0)

_CAPABILITIES: Final = {
    Capability.SURVIVES_PROCESS_KILL: FULL,
    Capability.SURVIVES_POWER_LOSS: Claim(Support.FULL, "on a disk that keeps what it was told to flush"),
    Capability.SURVIVES_SERVER_RESTART: Claim(Support.UNSUPPORTED, "there is no server"),
    Capability.SEVERAL_PROCESSES: Claim(Support.UNSUPPORTED, "RocksDB locks its folder for one process at a time"),
    Capability.FENCING: Claim(Support.FULL, "between the owners of one process, and from one process to the next"),
    Capability.SNAPSHOT_READS: FULL,
    Capability.BOUNDED_SCAN: FULL,
    Capability.SECURE_DELETE: Claim(Support.UNSUPPORTED, "files keep what was deleted until they are rewritten"),
    Capability.TLS: Claim(Support.UNSUPPORTED, "there is no network"),
}


def open_rocksdb(url: str, options: Mapping[str, Any], timeout: float) -> RocksDBDatabase:
    """Open `rocksdb:///relative/folder` or `rocksdb:////absolute/folder`; a missing folder is created in its parent.

    With `create=never` a missing or empty folder is an error. Raises ConfigurationError, SchemaError,
    BackendUnavailable, StorageFull.
    """
    given = dict(options)
    create = given.pop("create", "auto")
    refuse_unknown(given, "create, deadline, owner")
    if create not in ("auto", "never"):
        raise ConfigurationError("the option 'create' must be 'auto' or 'never'")
    # Without links: two names of one folder must lead to one open database.
    folder = path_of(url).resolve()
    if create == "never":
        require(folder)
    return RocksDBDatabase(folder, timeout)


@hookimpl
def cryptostore_backends() -> Iterable[BackendPlugin]:
    """The RocksDB backend."""
    return [
        BackendPlugin(
            "rocksdb",
            _INTERFACE,
            open_rocksdb,
            _CAPABILITIES,
            shown_options=frozenset({"create"}),
            existing_only={"create": "never"},
        )
    ]
