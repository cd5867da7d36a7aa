"""What tells one series of a metric, or one span, from another."""

from __future__ import annotations

import re
from typing import Final

from cryptostore.records.record import Account

Attributes = dict[str, str | int]

#: Which user's client it is. Devices come and go, so that only spans have them.
USER: Final = "matrix.user.id"
DEVICE: Final = "matrix.device.id"
ERROR: Final = "error.type"

#: As OpenTelemetry writes it.
_SYSTEMS: Final = {"postgres": "postgresql"}
_COMMAND: Final = re.compile(r"cryptostore ([a-z-]{1,20}) on ")


def of_user(account: Account, **more: str) -> Attributes:
    """The attributes of an account's metric; in further names, `__` stands for a point."""
    return {USER: account.user_id, **{name.replace("__", "."): value for name, value in more.items()}}


def of_batch(account: Account, backend: str) -> Attributes:
    """Those of an operation on a database."""
    return {USER: account.user_id, "db.system.name": _SYSTEMS.get(backend, backend), "db.operation.name": "BATCH"}


def command_of(owner: str) -> str:
    """The command that an owner's name tells of; "none" for a client. The name itself has a process id."""
    found = _COMMAND.match(owner)
    return found[1] if found else "none"
