"""What `cryptostore doctor` finds: one value for each thing that was looked at, by the core or by a backend."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from cryptostore.errors import CryptoStoreError


class Level(enum.StrEnum):
    """How much a finding matters."""

    #: As it should be.
    OK = "ok"
    #: Worth knowing; nothing has to be changed.
    NOTE = "note"
    #: Clients work, and something should be changed.
    WARNING = "warning"
    #: Clients do not work, or lose keys, until something is changed.
    PROBLEM = "problem"

    @property
    def has_to_be_changed(self) -> bool:
        """Whether somebody has to do something."""
        return self in (Level.WARNING, Level.PROBLEM)


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, what was seen, and the remedy.

    `check` is the name of the check. `commands` are what to run, exactly as it is: SQL, or commands of a shell. With
    `prevents_opening` no client can open the database as it is, so that the core does not try to. No text holds a
    secret.
    """

    check: str
    level: Level
    seen: str
    remedy: str = ""
    commands: tuple[str, ...] = ()
    prevents_opening: bool = False

    @classmethod
    def of_error(cls, check: str, error: CryptoStoreError, *, prevents_opening: bool = False) -> Finding:
        """The problem that an error tells. What is behind the first semicolon of its text is the remedy."""
        seen, _, remedy = str(error).partition("; ")
        return cls(check, Level.PROBLEM, seen, remedy, prevents_opening=prevents_opening)
