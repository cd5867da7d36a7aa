"""The entry point: what this backend is called, how it is opened, and what it can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from cryptostore import (
    FULL,
    INTERFACE_VERSION,
    BackendPlugin,
    Capability,
    Claim,
    Support,
    hookimpl,
)

from . import files
from .checks import refuse_unsafe
from .connections import Connections
from .database import SQLiteDatabase
from .diagnosis import diagnose
from .given import Given, refuse_old_sqlite, settings

_CAPABILITIES: Final = {
    Capability.SURVIVES_PROCESS_KILL: FULL,
    Capability.SURVIVES_POWER_LOSS: Claim(Support.FULL, "on a disk that keeps what it was told to flush"),
    Capability.SURVIVES_SERVER_RESTART: Claim(Support.UNSUPPORTED, "there is no server"),
    Capability.SEVERAL_PROCESSES: Claim(
        Support.VERSIONED,
        "SQLite 3.51.3, 3.50.7 or 3.44.6 and later: others may, very rarely, lose what processes commit at once; on "
        "one machine, never over a network file system",
    ),
    Capability.FENCING: FULL,
    Capability.SNAPSHOT_READS: FULL,
    Capability.BOUNDED_SCAN: FULL,
    Capability.SECURE_DELETE: Claim(Support.FULL, "in the database's files; a disk may keep old blocks"),
    Capability.TLS: Claim(Support.UNSUPPORTED, "there is no network"),
}

#: Options that errors and logs may show.
_SHOWN_OPTIONS: Final = frozenset({"create", "file_system"})


def open_sqlite(url: str, options: Mapping[str, Any], timeout: float) -> SQLiteDatabase:
    """Open `sqlite:///relative/path` or `sqlite:////absolute/path`; a missing file is created, a missing folder is not.

    The options are `create` ("auto", or "never": a missing file is an error) and `file_system` ("local", or "any": one
    on which SQLite may lose data is not refused). Raises ConfigurationError, SchemaError, BackendUnavailable,
    StorageFull.
    """
    refuse_old_sqlite()
    given = Given.of(url, options)
    path = files.resolved(given.path)
    refuse_unsafe(path, any_file_system=given.any_file_system)
    if not given.may_create:
        files.require(path)
    files.ensure_private_file(path)
    return SQLiteDatabase(Connections(path, timeout))


@hookimpl
def cryptostore_backends() -> Iterable[BackendPlugin]:
    """The SQLite backend."""
    return [
        BackendPlugin(
            "sqlite",
            INTERFACE_VERSION,
            open_sqlite,
            _CAPABILITIES,
            _SHOWN_OPTIONS,
            existing_only={"create": "never"},
            settings=settings,
            diagnose=diagnose,
        )
    ]
