"""Containers that nio changes and that say so: a flush looks at what was touched, not at everything."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import Any, Self, TypeVar

V = TypeVar("V")


class NotingDict(UserDict[str, V]):
    """Notes the key of each value that is set, removed or handed out, since a caller may change what it got.

    Code that keeps a value for longer than one step of the event loop has to note that by itself. `data` is the plain
    dictionary.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        super().__init__()

    def __getitem__(self, key: str) -> V:
        value = self.data[key]
        self._note(key)
        return value

    def __setitem__(self, key: str, value: V) -> None:
        self._note(key)
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self._note(key)
        super().__delitem__(key)


class NotingSet(set[str]):
    """Notes the members that come and go."""

    #: That of copies, which Python makes without `__init__`.
    _note: Callable[[Iterable[str]], None] = staticmethod(lambda _members: None)

    def __init__(self, members: Iterable[str], note: Callable[[Iterable[str]], None]) -> None:
        self._note = note
        super().__init__(members)

    def __reduce__(self) -> tuple[Any, ...]:
        return set, (list(self),)

    def add(self, member: str) -> None:
        self._note([member])
        super().add(member)

    def discard(self, member: Any) -> None:
        self._note([member])
        super().discard(member)

    def remove(self, member: str) -> None:
        self._note([member])
        super().remove(member)

    def update(self, *others: Iterable[str]) -> None:
        for other in others:
            members = list(other)
            self._note(members)
            super().update(members)

    def difference_update(self, *others: Iterable[Any]) -> None:
        for other in others:
            members = list(other)
            self._note(members)
            super().difference_update(members)

    def intersection_update(self, *others: Iterable[Any]) -> None:
        self.difference_update(set(self).difference(set(self).intersection(*others)))

    def symmetric_difference_update(self, other: Iterable[str]) -> None:
        members = list(other)
        self._note(members)
        super().symmetric_difference_update(members)

    def clear(self) -> None:
        self._note(self)
        super().clear()

    def pop(self) -> str:
        member = super().pop()
        self._note([member])
        return member

    def __ior__(self, other: AbstractSet[str]) -> Self:  # type: ignore[override,misc]  # a set of texts only
        self.update(other)
        return self

    def __isub__(self, other: AbstractSet[Any]) -> Self:  # type: ignore[misc]  # a set of texts only
        self.difference_update(other)
        return self

    def __iand__(self, other: AbstractSet[Any]) -> Self:  # type: ignore[misc]  # a set of texts only
        self.intersection_update(other)
        return self

    def __ixor__(self, other: AbstractSet[str]) -> Self:  # type: ignore[override,misc]  # a set of texts only
        self.symmetric_difference_update(other)
        return self
