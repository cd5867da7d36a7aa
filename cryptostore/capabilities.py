"""What a backend says it can do, so that nobody has to find out by losing keys."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Capability(enum.StrEnum):
    """Something that one database can do and another cannot."""

    SURVIVES_PROCESS_KILL = "survives process kill"
    SURVIVES_POWER_LOSS = "survives power loss"
    SURVIVES_SERVER_RESTART = "survives server restart"
    SEVERAL_PROCESSES = "several processes"
    FENCING = "fencing"
    SNAPSHOT_READS = "snapshot reads"
    BOUNDED_SCAN = "bounded scan"
    SECURE_DELETE = "secure delete"
    TLS = "tls"


class Support(enum.StrEnum):
    """How far a capability is there."""

    FULL = "full"
    VERSIONED = "versioned"
    UNSUPPORTED = "unsupported"
    NOT_IMPLEMENTED = "not implemented"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Claim:
    """A backend's word on one capability; anything but FULL has a reason, VERSIONED the versions."""

    support: Support
    reason: str = ""

    def __post_init__(self) -> None:
        if self.support not in (Support.FULL, Support.UNKNOWN) and not self.reason:
            raise ValueError(f"{self.support} needs a reason")


#: The claim most often made.
FULL = Claim(Support.FULL)
