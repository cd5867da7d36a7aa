"""Answers to look-ups: the records, and the keys of rows that cannot be read."""

from __future__ import annotations

from typing import Any, TypeVar

from cryptostore.records.record import Key, Record

R = TypeVar("R", bound=Record)


class Found(dict[Key, R]):
    """The records that exist, by key.

    `unreadable` has the keys of rows that exist but cannot be read, each with the reason.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unreadable: dict[Key | None, str] = {}


class Selected(dict[Key, list[R]]):
    """The records under each prefix, in key order.

    `unreadable` has the keys of rows that exist but cannot be read, each with the reason. None stands for rows whose
    key cannot be read either.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unreadable: dict[Key | None, str] = {}


class SelectedTogether:
    """What one round trip found of several kinds."""

    def __init__(self) -> None:
        self._by_kind: dict[type[Record], Selected[Any]] = {}

    def of(self, kind: type[R]) -> Selected[R]:
        """The answer for the prefixes of this kind; it is empty where none was asked for."""
        if kind not in self._by_kind:
            self._by_kind[kind] = Selected()
        return self._by_kind[kind]
