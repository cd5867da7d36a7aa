"""The plugin of the in-memory model.

`memory://` is a database of its own; every `memory://NAME` of a process is the same one, until the process ends.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from cryptostore.store.interface import INTERFACE_VERSION
from cryptostore.store.memory import MemoryDatabase, MemoryHandle

from .capabilities import FULL, Capability, Claim, Support
from .hookspecs import hookimpl
from .plugin import BackendPlugin
from .urls import refuse_unknown

_named: Final[dict[str, MemoryDatabase]] = {}
_naming: Final = threading.Lock()


def open_memory(url: str, options: Mapping[str, Any], timeout: float) -> MemoryHandle:
    """Open `memory://` or `memory://NAME`."""
    refuse_unknown(options, "deadline, owner")
    name = urlsplit(url).netloc
    with _naming:
        shared = _named.setdefault(name, MemoryDatabase()) if name else MemoryDatabase()
    return MemoryHandle(shared)


@hookimpl
def cryptostore_backends() -> Iterable[BackendPlugin]:
    """The in-memory backend."""
    gone = Claim(Support.UNSUPPORTED, "the database is gone with its process")
    here = {
        Capability.FENCING: FULL,
        Capability.SNAPSHOT_READS: FULL,
        Capability.BOUNDED_SCAN: FULL,
        Capability.SURVIVES_PROCESS_KILL: gone,
        Capability.SURVIVES_POWER_LOSS: gone,
        Capability.SURVIVES_SERVER_RESTART: Claim(Support.UNSUPPORTED, "there is no server"),
        Capability.SEVERAL_PROCESSES: Claim(Support.UNSUPPORTED, "each process has a database of its own"),
        Capability.SECURE_DELETE: Claim(Support.UNSUPPORTED, "Python does not overwrite freed memory"),
        Capability.TLS: Claim(Support.UNSUPPORTED, "there is no network"),
    }
    return [BackendPlugin("memory", INTERFACE_VERSION, open_memory, here)]
