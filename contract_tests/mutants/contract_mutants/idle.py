"""The cases for which no mutant is named, and why each stays.

A bug that a case finds by the backend's own error, and not by an assertion, does not count as a kill.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_LONGER: Final = "the soak's longer form of {}, which kills"
_ITS_OWN_ERROR: Final = "a backend with the bug raises its own error from the call under test, before any assertion"
_CHANCE: Final = (
    "whether the fault comes between a commit and its answer is chance; NUMBERING-5 meets the same bug surely"
)

#: By case ID. A test holds that every other case is named by a mutant or kills by chance, and the full table that none
#: of these kills one.
KILL_NONE: Final[Mapping[str, str]] = {
    "CRASHES-4": _LONGER.format("CRASHES-2"),
    "CRASHES-5": _LONGER.format("CRASHES-2"),
    "FAULTS-5": _ITS_OWN_ERROR,
    "FAULTS-11": _ITS_OWN_ERROR,
    "MACHINE-2": _LONGER.format("MACHINE-1"),
    "MACHINE-4": _LONGER.format("MACHINE-3"),
    "RESTART-5": _LONGER.format("RESTART-4"),
    "SCHEMA-10": _LONGER.format("SCHEMA-9"),
    "SEVERING-5": _LONGER.format("SEVERING-1"),
    "SEVERING-6": _LONGER.format("SEVERING-2"),
    "SEVERING-7": _LONGER.format("SEVERING-3"),
}

#: By case ID. Each of these may kill a mutant or not, so no mutant names it.
KILL_BY_CHANCE: Final[Mapping[str, str]] = {
    "CONCURRENCY-3": "whether an owner is taken over between its check and its commit is chance; OWNERSHIP-11 holds it",
    "FAULTS-2": _CHANCE,
    "FAULTS-3": "an outage that an attempt waits out shows no bug; whether one attempt is enough is chance",
    "FAULTS-7": _CHANCE,
    "FAULTS-10": _CHANCE,
}
