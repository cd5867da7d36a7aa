"""The cases for which no mutant is named, and why each stays.

A bug that a case finds by the backend's own error, and not by an assertion, does not count as a kill.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_LONGER: Final = "the soak's longer form of {}, which kills"
_CHANCE: Final = (
    "whether the fault comes between a commit and its answer is chance; NUMBERING-5 meets the same bug surely"
)
_YOUNG: Final = "a mutant of it is still to be written"
_ITS_OWN_ERROR: Final = "a backend with the bug raises its own error from the call under test, before any assertion"

#: By case ID. A test holds that every other case is named by a mutant, and the full table that none of these kills one.
KILL_NONE: Final[Mapping[str, str]] = {
    "CRASHES-3": "the same bugs as CRASHES-2, met at other moments: which of the two meets one is chance",
    "CRASHES-4": _LONGER.format("CRASHES-2"),
    "CRASHES-5": _LONGER.format("CRASHES-2"),
    "FAULTS-1": _ITS_OWN_ERROR,
    "FAULTS-2": _CHANCE,
    "FAULTS-3": _ITS_OWN_ERROR,
    "FAULTS-5": _ITS_OWN_ERROR,
    "FAULTS-7": _CHANCE,
    "FAULTS-10": _CHANCE,
    "FAULTS-11": _ITS_OWN_ERROR,
    "MACHINE-2": _LONGER.format("MACHINE-1"),
    "RESTART-5": _LONGER.format("RESTART-4"),
    "SCHEMA-7": _YOUNG,
    "SCHEMA-8": _YOUNG,
    "SECRETS-3": _YOUNG,
    "SECRETS-4": _YOUNG,
    "SECRETS-5": _YOUNG,
    "FAULTS-12": _YOUNG,
    "SEVERING-1": _YOUNG,
    "SEVERING-2": _YOUNG,
    "SEVERING-3": _YOUNG,
    "SEVERING-4": _YOUNG,
    "SEVERING-5": _YOUNG,
    "SEVERING-6": _YOUNG,
    "SEVERING-7": _YOUNG,
}
