"""The harness of the in-memory model: the smallest one that there can be."""

from __future__ import annotations

from typing import ClassVar
from uuid import uuid4

from .harness import Ability, Harness


class MemoryHarness(Harness):
    """A named in-memory database, which lives as long as this process."""

    name: ClassVar[str] = "memory"
    abilities = frozenset({Ability.REOPEN})

    def __init__(self) -> None:
        self._url = f"memory://{uuid4()}"

    @property
    def url(self) -> str:
        return self._url

    def close(self) -> None:
        pass  # a few dictionaries under a name that is not used again
