"""What a database can and cannot do, as its backend declares it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Capability(enum.StrEnum):
    """Something that one database can do and another cannot."""

    #: What was acknowledged is there after SIGKILL of the process that wrote it.
    SURVIVES_PROCESS_KILL = "survives process kill"
    #: What was acknowledged is there after a power failure.
    SURVIVES_POWER_LOSS = "survives power loss"
    #: What was acknowledged is there after the database server was stopped or killed, and started again.
    SURVIVES_SERVER_RESTART = "survives server restart"
    #: Several processes may have the database open at the same time.
    SEVERAL_PROCESSES = "several processes"
    #: An owner whose account was taken over cannot write any more.
    FENCING = "fencing"
    #: One answer of `get` or `select`, and one page of `scan`, sees every batch whole or not at all.
    SNAPSHOT_READS = "snapshot reads"
    #: `scan` needs no more memory for more records.
    BOUNDED_SCAN = "bounded scan"
    #: Nothing of a deleted or replaced record stays in the database's files.
    SECURE_DELETE = "secure delete"
    #: Connections can be encrypted, to a server whose certificate is checked.
    TLS = "tls"


class Support(enum.StrEnum):
    """How far a database has a capability."""

    #: It is there. A reason is allowed, for a condition such as a disk that keeps what it was told to flush.
    FULL = "full"
    #: It is there with some versions of the database, which the reason names for people.
    VERSIONED = "versioned"
    #: The database cannot do it.
    UNSUPPORTED = "unsupported"
    #: The database could do it, and the backend does not.
    NOT_IMPLEMENTED = "not implemented"
    #: The backend does not say.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Claim:
    """A backend's statement about one capability. All but FULL and UNKNOWN need a reason: ValueError without one.

    The reason is a text for people, and nothing parses it. That of VERSIONED names the versions, as in
    `Claim(Support.VERSIONED, "PostgreSQL 17 or later")`. The contract takes such a claim for FULL, and tests it on the
    version that it runs on.
    """

    support: Support
    reason: str = ""

    def __post_init__(self) -> None:
        if self.support not in (Support.FULL, Support.UNKNOWN) and not self.reason:
            raise ValueError(f"{self.support} needs a reason")


#: The claim most often made.
FULL = Claim(Support.FULL)
