"""The entry point: what this backend is called, how it is opened, and what it can do."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote_to_bytes, urlsplit

from cryptostore import (
    FULL,
    INTERFACE_VERSION,
    BackendPlugin,
    Capability,
    Claim,
    ConfigurationError,
    Support,
    hookimpl,
)
from cryptostore.plugins.urls import refuse_unknown

from .connections import Connections
from .database import SQLiteDatabase

#: The first SQLite with STRICT tables.
_OLDEST_SQLITE: Final = (3, 37, 0)

_CAPABILITIES: Final = {
    Capability.SURVIVES_PROCESS_KILL: FULL,
    Capability.SURVIVES_POWER_LOSS: Claim(Support.FULL, "on a disk that keeps what it was told to flush"),
    Capability.SURVIVES_SERVER_RESTART: Claim(Support.UNSUPPORTED, "there is no server"),
    Capability.SEVERAL_PROCESSES: Claim(Support.FULL, "on one machine; never over a network file system"),
    Capability.FENCING: FULL,
    Capability.SNAPSHOT_READS: FULL,
    Capability.BOUNDED_SCAN: FULL,
    Capability.SECURE_DELETE: Claim(Support.FULL, "in the database's files; a disk may keep old blocks"),
    Capability.TLS: Claim(Support.UNSUPPORTED, "there is no network"),
}


def open_sqlite(url: str, options: Mapping[str, Any], timeout: float) -> SQLiteDatabase:
    """Open `sqlite:///relative/path` or `sqlite:////absolute/path`; a missing file is created, a missing folder is not.

    Knows no options but the core's. Raises ConfigurationError, SchemaError, BackendUnavailable, StorageFull.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        oldest = ".".join(map(str, _OLDEST_SQLITE))
        raise ConfigurationError(
            f"this Python was built with SQLite {sqlite3.sqlite_version}; matrix-cryptostore-sqlite needs {oldest} or "
            "newer: use a newer Python or operating system"
        )
    refuse_unknown(options, "deadline, owner")
    return SQLiteDatabase(Connections(path_of(url), timeout))


def path_of(url: str) -> Path:
    """The absolute path of the file that `url` names, read as SQLAlchemy reads it. Raises ConfigurationError."""
    parts = urlsplit(url)
    if parts.fragment:
        raise ConfigurationError("a SQLite URL has no part after '#'; a '#' in a file's name is written %23")
    if parts.netloc or not url.partition(":")[2].startswith("///"):
        raise ConfigurationError(
            "a SQLite URL has three slashes before a relative path (sqlite:///keys.db) and four before an absolute one "
            "(sqlite:////var/lib/bot/keys.db); for a database in memory use memory://"
        )
    name = os.fsdecode(unquote_to_bytes(parts.path[1:]))
    if name in ("", ":memory:"):
        raise ConfigurationError(
            "this SQLite URL names no file, and keys in memory are lost with the process: "
            "write sqlite:///keys.db, or use memory:// if that is what you want"
        )
    if "\0" in name:
        raise ConfigurationError("the path in a SQLite URL must not contain %00")
    return Path(name).absolute()


@hookimpl
def cryptostore_backends() -> Iterable[BackendPlugin]:
    """The SQLite backend."""
    return [BackendPlugin("sqlite", INTERFACE_VERSION, open_sqlite, _CAPABILITIES)]
