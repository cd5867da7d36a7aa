"""What the entry points name: the backends `postgresql` and `postgres`, which are one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cryptostore.plugins import BackendPlugin
from cryptostore.plugins.capabilities import FULL, Capability, Claim, Support
from cryptostore.plugins.hookspecs import hookimpl

from .database import open_postgres
from .diagnosis import diagnose
from .options import SHOWN_OPTIONS, Migrate
from .scratch import Schemas
from .settings import settings

#: The interface that this backend was written for.
_INTERFACE: Final = (2, 0)

_CAPABILITIES: Final = {
    Capability.SURVIVES_PROCESS_KILL: FULL,
    Capability.SURVIVES_POWER_LOSS: Claim(
        Support.FULL, "on a server with fsync and full_page_writes on, as they are unless they were turned off"
    ),
    Capability.SURVIVES_SERVER_RESTART: FULL,
    Capability.SEVERAL_PROCESSES: FULL,
    Capability.FENCING: FULL,
    Capability.SNAPSHOT_READS: FULL,
    Capability.BOUNDED_SCAN: FULL,
    Capability.SECURE_DELETE: Claim(
        Support.UNSUPPORTED, "deleted rows stay in table files until vacuumed, and in the log and backups"
    ),
    Capability.TLS: FULL,
}


@hookimpl
def cryptostore_backends() -> Iterable[BackendPlugin]:
    """The PostgreSQL backend under both of its names."""
    return [
        BackendPlugin(
            name,
            _INTERFACE,
            open_postgres,
            _CAPABILITIES,
            SHOWN_OPTIONS,
            Schemas,
            existing_only={"migrate": Migrate.NEVER.value},
            settings=settings,
            diagnose=diagnose,
        )
        for name in ("postgresql", "postgres")
    ]
